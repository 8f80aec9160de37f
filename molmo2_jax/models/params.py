"""Parameters outside the model: a flat dict {"llm/blocks/attn/q/w": array}, and the structure that makes it a model.

Flat names are what optimizer groups match, what gradients are taken of, and what checkpoints store.
"""

import dataclasses
import math

import jax
from flax import nnx

from molmo2_jax import sharding
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.molmo2 import Molmo2

Params = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Structure:
    """Everything about a model but its numbers."""

    config: Molmo2Config
    graph: nnx.GraphDef
    tree: jax.tree_util.PyTreeDef
    axes: dict[str, tuple[str, ...]]  # logical axes, without the leading `layers`
    shapes: dict[str, tuple[int, ...]]

    def model(self, params: Params) -> Molmo2:
        """The model with these numbers. KeyError if one is missing."""
        return nnx.merge(self.graph, jax.tree.unflatten(self.tree, [params[name] for name in self.shapes]))

    def count(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def abstract(self, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
        """float32 shapes with the sharding each parameter is stored with."""
        out = {}
        for name, shape in self.shapes.items():
            spec = sharding.stored(self.axes[name], len(shape))
            out[name] = jax.ShapeDtypeStruct(shape, "float32", sharding=jax.NamedSharding(mesh, spec))
        return out


def structure(c: Molmo2Config) -> Structure:
    """Structure of a model, without allocating it. Needs a mesh to be set (sharding.make_mesh)."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Molmo2(c, nnx.Rngs(0))))
    named = {"/".join(path): p for path, p in nnx.to_flat_state(state)}
    tree = jax.tree.structure(state)
    axes = {name: p.axes for name, p in named.items()}
    return Structure(c, graph, tree, axes, {name: p.shape for name, p in named.items()})


def init(s: Structure, seed: int) -> Params:
    """Random parameters, drawn straight into their shards."""

    @jax.jit
    def draw(key):
        return jax.tree.leaves(nnx.state(Molmo2(s.config, nnx.Rngs(params=key))))

    return dict(zip(s.shapes, draw(jax.random.key(seed)), strict=True))
