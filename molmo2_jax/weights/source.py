"""What weights can be read from, and loading them into the shards of a mesh."""

from collections.abc import Mapping
from typing import Protocol

import jax
import numpy as np

from molmo2_jax.models.structure import Params, Structure


class ParameterSource(Protocol):
    """Stored weights of a model (a checkpoint, a directory of safetensors), read one layer at a time.

    `where` names the source in errors. `arrays` has the shape and stored dtype of every parameter it holds; stacked
    parameters have their layers in front.
    """

    where: str
    arrays: Mapping[str, jax.ShapeDtypeStruct]

    def read(self, name: str, layer: int | None) -> np.ndarray:
        """One layer of a stacked parameter (`layer` 0, 1, ...), or any parameter whole (None), in its stored dtype."""
        ...


def load_sharded(sources: Mapping[str, ParameterSource], s: Structure, mesh: jax.sharding.Mesh) -> Params:
    """The parameters of `sources`, {parameter: the source to read it from}, as float32 arrays in their shards.

    A parameter is read layer by layer into the shards of this process's devices: host memory holds one parameter at a
    time (at most 7.2 GB for 8B on a single host), never the model. A source may have more layers than are wanted.
    """
    wanted = s.abstract(mesh)
    return {
        name: jax.block_until_ready(_load_parameter(name, source, s.layers(name), wanted[name]))
        for name, source in sources.items()
    }


def _load_parameter(name: str, source: ParameterSource, layers: int | None, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    indices = wanted.sharding.addressable_devices_indices_map(wanted.shape).values()
    shards = {_index_ranges(index, wanted.shape): None for index in indices}
    shards = {ranges: np.empty([stop - start for start, stop in ranges], wanted.dtype) for ranges in shards}
    for layer in (None,) if layers is None else range(layers):  # the layer dimension is never sharded
        values = source.read(name, layer)
        for ranges, shard in shards.items():
            if layer is None:
                shard[...] = values[tuple(slice(*r) for r in ranges)]
            else:
                shard[layer] = values[tuple(slice(*r) for r in ranges[1:])]
    return jax.make_array_from_callback(
        wanted.shape, wanted.sharding, lambda index: shards[_index_ranges(index, wanted.shape)]
    )


def _index_ranges(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """(start, stop) along each dimension: hashable, unlike slices."""
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
