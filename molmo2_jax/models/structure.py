"""The structure of a model: everything except its weights, which are a flat dict outside the model.

    {"llm/blocks/attn/q/w": array, "llm/blocks/attn/k/w": array, ...}

Parameter groups match these names, gradients have them, and checkpoints store them.
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
    """Everything about a model except its weights."""

    config: Molmo2Config
    graph: nnx.GraphDef
    tree: jax.tree_util.PyTreeDef
    axes: dict[str, tuple[str, ...]]  # logical axes, without the leading `layers`
    shapes: dict[str, tuple[int, ...]]

    def model(self, params: Params) -> Molmo2:
        """The model with these weights. Raises KeyError for the first that is missing."""
        return nnx.merge(self.graph, jax.tree.unflatten(self.tree, [params[name] for name in self.shapes]))

    def layers(self, name: str) -> int | None:
        """The number of layers of a stacked parameter; None if it is not stacked."""
        shape = self.shapes[name]
        return shape[0] if len(shape) > len(self.axes[name]) else None

    def count(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def abstract(self, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
        """float32 shapes with the sharding that each parameter is stored with."""
        out = {}
        for name, shape in self.shapes.items():
            spec = sharding.stored(self.axes[name], len(shape))
            out[name] = jax.ShapeDtypeStruct(shape, "float32", sharding=jax.NamedSharding(mesh, spec))
        return out


def structure(c: Molmo2Config) -> Structure:
    """The structure of a model, without allocating it. Needs a mesh to be set (sharding.make_mesh)."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Molmo2(c, nnx.Rngs(0))))
    named = {"/".join(path): p for path, p in nnx.to_flat_state(state)}
    tree = jax.tree.structure(state)
    axes = {name: p.axes for name, p in named.items()}
    return Structure(c, graph, tree, axes, {name: p.shape for name, p in named.items()})


def tensor_dims(c: Molmo2Config) -> dict[str, tuple[int, str]]:
    """The sizes of a model that are sharded over `tensor`, in the form of `sharding.check_divides`."""
    sizes = {
        "llm heads": c.llm.heads,
        "llm kv_heads": c.llm.kv_heads,
        "llm mlp": c.llm.mlp,
        "llm vocab": c.llm.vocab,
        "vit heads": c.vit.heads,
        "vit mlp": c.vit.mlp,
        "connector heads": c.connector.heads,
        "connector mlp": c.connector.mlp,
    }
    return {name: (size, sharding.TENSOR) for name, size in sizes.items()}
