"""Parameters outside the model: a flat dict {"llm/blocks/attn/q/w": array}, and the structure that makes it a model.

Flat names are what optimizer groups match, what gradients are taken of, and what checkpoints store.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Protocol

import jax
import numpy as np
from flax import nnx

from molmo2_jax import sharding
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.molmo2 import Molmo2

Params = dict[str, jax.Array]


class ParameterSource(Protocol):
    """Numbers of a model that lie elsewhere (a checkpoint, a directory of safetensors), read a layer at a time.

    `where` names it in errors. `arrays` has every parameter it holds, stacked ones with their layers in front, in the
    dtype it is stored in.
    """

    where: str
    arrays: Mapping[str, jax.ShapeDtypeStruct]

    def read(self, name: str, layer: int | None) -> np.ndarray:
        """One layer of a stacked parameter (`layer` 0, 1, ...), or the whole of another (None), as it is stored."""
        ...


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

    def layers(self, name: str) -> int | None:
        """How many layers a stacked parameter has; None for one that is not stacked."""
        shape = self.shapes[name]
        return shape[0] if len(shape) > len(self.axes[name]) else None

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


def init(s: Structure, seed: int, names: Collection[str] | None = None) -> Params:
    """Random parameters, drawn straight into their shards: those of `names`, or all; the same ones either way."""

    @jax.jit
    def draw(key):
        drawn = zip(s.shapes, jax.tree.leaves(nnx.state(Molmo2(s.config, nnx.Rngs(params=key)))), strict=True)
        return {name: x for name, x in drawn if names is None or name in names}

    return draw(jax.random.key(seed))


def place(sources: Mapping[str, ParameterSource], s: Structure, mesh: jax.sharding.Mesh) -> Params:
    """The parameters of `sources`, {name: where its numbers are}, as float32 arrays in their shards.

    A parameter is read layer by layer into the shards that this process' devices hold: host memory has one parameter at
    a time (of 8B on a single host: 7.2 GB at most), never the model. A source may have more layers than are wanted.
    """
    wanted = s.abstract(mesh)
    return {
        name: jax.block_until_ready(_place(name, source, s.layers(name), wanted[name]))
        for name, source in sources.items()
    }


def _place(name: str, source: ParameterSource, layers: int | None, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    where = wanted.sharding.addressable_devices_indices_map(wanted.shape).values()
    shards = {_ranges(index, wanted.shape): None for index in where}
    shards = {ranges: np.empty([stop - start for start, stop in ranges], wanted.dtype) for ranges in shards}
    for layer in (None,) if layers is None else range(layers):  # layers are never cut: every shard has all of them
        values = source.read(name, layer)
        for ranges, shard in shards.items():
            if layer is None:
                shard[...] = values[tuple(slice(*r) for r in ranges)]
            else:
                shard[layer] = values[tuple(slice(*r) for r in ranges[1:])]
    return jax.make_array_from_callback(
        wanted.shape, wanted.sharding, lambda index: shards[_ranges(index, wanted.shape)]
    )


def _ranges(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
