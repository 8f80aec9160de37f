"""Orbax checkpoints of parameters, written and read one layer at a time: no model ever lies in host memory.

    folder/  _METADATA  manifest.ocdbt  d/  ocdbt.process_0/      names are nested: {"llm": {"blocks": {"attn": ...}}}

Layout, metadata and the commit are Orbax's own, so that `checkpoint.load_params` restores what is written here and
`ParamFiles` reads what training saved. Numbers are not compressed: zstd would make bfloat16 weights a fifth smaller and
cost twice the computing, written and read.
"""

import collections
import dataclasses
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from flax import traverse_util

from molmo2_jax.models.contiguous import contiguous
from molmo2_jax.models.params import ParameterSource, Structure
from molmo2_jax.train.checkpoint import CHUNK_BYTES, CheckpointError

_IN_FLIGHT = 1 << 27  # bytes that TensorStore may be writing while the next ones are read


class ParamFiles:
    """A checkpoint's parameters as a ParameterSource. Reading a layer decodes no chunk but those it lies in."""

    def __init__(self, folder: pathlib.Path):
        """Reads names, shapes and dtypes.

        Args:
          folder: what `write_params` wrote, or `params/` of a training step.

        Raises:
          FileNotFoundError: there is no such folder.
          CheckpointError: no parameters are in it, or not all of them: it is unfinished or damaged.
        """
        self._folder = folder.absolute()
        self.where = str(self._folder)
        if not self._folder.is_dir():
            raise FileNotFoundError(f"{self.where}: no such folder")
        if not all(ocp.utils.is_checkpoint_finalized(path) for path in (self._folder, self._folder.parent)):
            raise CheckpointError(f"{self.where}: an unfinished checkpoint; whoever wrote it was interrupted")
        self._stored = {name: self._result(name, future) for name, future in _open(self._folder).items()}
        self.arrays = {n: jax.ShapeDtypeStruct(x.shape, x.dtype.numpy_dtype) for n, x in self._stored.items()}

    def read(self, name: str, layer: int | None) -> np.ndarray:
        """One layer of a stacked parameter (`layer` 0, 1, ...), or the whole of another (None), as it is stored.

        Raises:
          CheckpointError: there is no such parameter or layer, or its file is damaged.
        """
        if name not in self._stored:
            raise CheckpointError(f"{self.where}: no parameter {name}")
        stored = self._stored[name]
        if layer is not None and not (stored.rank and 0 <= layer < stored.shape[0]):
            raise CheckpointError(f"{self.where}: parameter {name} {list(stored.shape)} has no layer {layer}")
        stored = stored if layer is None else stored[layer]
        out = np.empty(stored.shape, stored.dtype.numpy_dtype)
        rows = stored.chunk_layout.read_chunk.shape[0]
        for start in range(0, len(out), rows):  # all at once, decoded chunks would take the size of `out` once more
            part = slice(start, min(start + rows, len(out)))
            self._result(name, ts.array(out)[part].write(stored[part]))
        return out

    def _result(self, name: str, future: ts.Future):
        try:
            return future.result()
        except ValueError as error:  # with the whole spec in brackets at its end
            raise CheckpointError(f"{self.where}: parameter {name} is damaged ({str(error).split(' [')[0]})") from error


def _open(folder: pathlib.Path) -> dict[str, ts.Future]:
    """Every array of a checkpoint, in the format its metadata tells, by our names."""
    try:
        metadata = json.loads((folder / "_METADATA").read_text())
        paths = [[part["key"] for part in entry["key_metadata"]] for entry in metadata["tree_metadata"].values()]
        zarr3 = metadata["use_zarr3"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: no parameters as Orbax stores them ({error!r})") from error
    ocdbt = ocp.type_handlers.is_ocdbt_checkpoint(folder)
    context = ocp.type_handlers.get_ts_context(use_ocdbt=ocdbt)
    opening = {}
    for path in paths:
        info = ocp.type_handlers.ParamInfo(name=".".join(path), parent_dir=folder, use_zarr3=zarr3, ts_context=context)
        spec = ocp.type_handlers.get_json_tspec_read(info, use_ocdbt=ocdbt)
        opening["/".join(path)] = ts.open(spec, open=True, read=True, context=context)
    return opening


def write_params(source: ParameterSource, s: Structure, folder: pathlib.Path, progress: Callable[[int], None]) -> None:
    """Writes the parameters of a model to a new checkpoint, in the dtypes of `source`. Nothing is left if it fails.

    Args:
      s: the model, whose parameters `source` has.
      progress: called with a number of bytes as soon as they are written.

    Raises:
      CheckpointError: a parameter is missing, unknown, or of another shape than in `s`.
      ValueError: `folder` exists.
    """
    _check(source, s)
    leaves = {name: _Leaf(source, name, s.layers(name), progress) for name in s.shapes}
    arrays = ocp.type_handlers.get_type_handler(jax.Array)  # Orbax warns where there is none
    registry = ocp.type_handlers.create_type_handler_registry((_Leaf, _LeafHandler()), (jax.Array, arrays))
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False)
    folder = folder.absolute()
    with ocp.Checkpointer(handler) as checkpointer:
        temporary = checkpointer.get_temporary_path(folder).get()
        try:
            checkpointer.save(folder, ocp.args.PyTreeSave(traverse_util.unflatten_dict(leaves, sep="/")))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # a finished one has been renamed


def _check(source: ParameterSource, s: Structure) -> None:
    wrong = [f"parameter {name} is missing" for name in s.shapes if name not in source.arrays]
    wrong += [f"parameter {name} is unknown to the model" for name in source.arrays if name not in s.shapes]
    wrong += [
        f"parameter {name} has shape {list(array.shape)}, the model's has {list(s.shapes[name])}"
        for name, array in source.arrays.items()
        if name in s.shapes and array.shape != s.shapes[name]
    ]
    if wrong:
        raise CheckpointError(f"{source.where}: {'; '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''}")


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A parameter on its way from its source to a checkpoint, where an array would be."""

    source: ParameterSource
    name: str
    layers: int | None
    progress: Callable[[int], None]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.arrays[self.name].shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.source.arrays[self.name].dtype)

    @property
    def chunk(self) -> tuple[int, ...]:
        """One layer, cut along its first axis where that is more than CHUNK_BYTES."""
        rows, *rest = self.shape if self.layers is None else self.shape[1:]
        cuts = math.ceil(rows * math.prod(rest) * self.dtype.itemsize / CHUNK_BYTES)
        inner = (math.ceil(rows / cuts), *rest)
        return inner if self.layers is None else (1, *inner)

    def chunks(self) -> Iterator[tuple[tuple, np.ndarray]]:
        """(index, numbers) of every chunk; `source` is asked for one layer at a time."""
        for layer in (None,) if self.layers is None else range(self.layers):
            values, above = self._layer(layer), () if layer is None else (layer,)
            rows = self.chunk[len(above)]
            for start in range(0, len(values), rows):
                part = slice(start, min(start + rows, len(values)))
                yield (*above, part), values[part]

    def _layer(self, layer: int | None) -> np.ndarray:
        values = self.source.read(self.name, layer)
        shape = self.shape if layer is None else self.shape[1:]
        if (values.shape, values.dtype) != (shape, self.dtype):
            which = "" if layer is None else f", layer {layer}"
            raise CheckpointError(
                f"{self.source.where}: parameter {self.name}{which} came as {values.dtype}{list(values.shape)}, "
                f"{self.dtype}{list(shape)} was announced"
            )
        return contiguous(values)  # TensorStore is slow with views, too


class _LeafHandler(ocp.type_handlers.NumpyHandler):
    """Stores leaves as Orbax stores numpy arrays; only that they come and are written chunk by chunk."""

    async def serialize(
        self, values: Sequence[_Leaf], infos: Sequence[ocp.type_handlers.ParamInfo], args=None
    ) -> Sequence[ocp.future.Future]:
        """Writes everything before it returns: in the caller's thread, which an error or Ctrl-C then ends at once."""
        writing: collections.deque[tuple[ts.WriteFutures, _Leaf, int]] = collections.deque()
        in_flight = 0
        try:
            for leaf, info in zip(values, infos, strict=True):
                stored = ts.open(_write_spec(leaf, info), create=True, open=True, context=info.ts_context).result()
                for index, numbers in leaf.chunks():
                    write = stored[index].write(numbers, can_reference_source_data_indefinitely=True)
                    write.commit.force()  # goes on while the next chunk is read
                    writing.append((write, leaf, numbers.nbytes))
                    in_flight += numbers.nbytes
                    while in_flight > _IN_FLIGHT:
                        in_flight -= _finish(writing.popleft())
            while writing:
                _finish(writing.popleft())
        finally:
            for write, *_ in writing:  # left over by an error: files must not appear in a folder that is being removed
                write.exception()
        return []


def _finish(write: tuple[ts.WriteFutures, _Leaf, int]) -> int:
    """Waits for a write and reports it; returns its bytes."""
    future, leaf, nbytes = write
    future.result()
    leaf.progress(nbytes)
    return nbytes


def _write_spec(leaf: _Leaf, info: ocp.type_handlers.ParamInfo) -> dict:
    """Orbax's TensorStore spec for an array of which one process writes pieces of the shape of a chunk."""
    return ocp.type_handlers.get_json_tspec_write(
        info,
        use_ocdbt=info.is_ocdbt_checkpoint,
        global_shape=leaf.shape,
        local_shape=leaf.chunk,
        dtype=leaf.dtype,
        process_index=jax.process_index(),
    )
