"""Orbax checkpoints of parameters, written and read one layer at a time: host memory never holds a whole model.

    folder/  _METADATA  manifest.ocdbt  d/  ocdbt.process_0/      names are nested: {"llm": {"blocks": {"attn": ...}}}

Layout, metadata and commit are Orbax's own, so that `checkpoint_files.load_params` restores what `write_params` wrote
and `ParamFiles` reads what training saved. Values are not compressed: zstd makes bfloat16 weights a fifth smaller but
doubles the CPU time of writing and reading.
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

from molmo2_jax.models.structure import Structure
from molmo2_jax.weights.checkpoint_files import CHUNK_BYTES, CheckpointError
from molmo2_jax.weights.contiguous import contiguous
from molmo2_jax.weights.source import ParameterSource

_IN_FLIGHT = 1 << 27  # bytes that TensorStore may be writing while the next chunk is read


class ParamFiles:
    """A checkpoint's parameters as a ParameterSource. Reading a layer decodes only the chunks of that layer."""

    def __init__(self, folder: pathlib.Path):
        """Reads names, shapes and dtypes.

        Args:
          folder: what `write_params` wrote, or `params/` of a training step.

        Raises:
          FileNotFoundError: there is no such folder.
          CheckpointError: the folder holds no parameters, is unfinished, or is damaged.
        """
        self._folder = folder.absolute()
        self.where = str(self._folder)
        if not self._folder.is_dir():
            raise FileNotFoundError(f"{self.where}: no such folder")
        if not all(ocp.utils.is_checkpoint_finalized(path) for path in (self._folder, self._folder.parent)):
            raise CheckpointError(f"{self.where}: an unfinished checkpoint: its writer was interrupted")
        self._stored = {name: self._wait_for(name, future) for name, future in _open_arrays(self._folder).items()}
        self.arrays = {n: jax.ShapeDtypeStruct(x.shape, x.dtype.numpy_dtype) for n, x in self._stored.items()}

    def read(self, name: str, layer: int | None) -> np.ndarray:
        """One layer of a stacked parameter (`layer` 0, 1, ...), or any parameter whole (None), in its stored dtype.

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
        for start in range(0, len(out), rows):  # one chunk at a time: all decoded chunks together are as large as `out`
            part = slice(start, min(start + rows, len(out)))
            self._wait_for(name, ts.array(out)[part].write(stored[part]))
        return out

    def _wait_for(self, name: str, future: ts.Future):
        try:
            return future.result()
        except ValueError as error:  # its text ends with the whole spec in brackets
            raise CheckpointError(f"{self.where}: parameter {name} is damaged ({str(error).split(' [')[0]})") from error


def _open_arrays(folder: pathlib.Path) -> dict[str, ts.Future]:
    """{parameter: the opened array}, in the format that the checkpoint's metadata names."""
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
    """Writes the parameters of a model to a new checkpoint, in the dtypes of `source`. If it fails, no file remains.

    Args:
      s: the structure of the model whose parameters `source` holds.
      progress: called with the number of bytes of each finished write.

    Raises:
      CheckpointError: a parameter is missing, unknown, or of another shape than in `s`.
      ValueError: `folder` exists.
    """
    _check_parameters(source, s)
    leaves = {name: _ParameterLeaf(source, name, s.layers(name), progress) for name in s.shapes}
    arrays = ocp.type_handlers.get_type_handler(jax.Array)  # Orbax warns without one
    registry = ocp.type_handlers.create_type_handler_registry((_ParameterLeaf, _LeafHandler()), (jax.Array, arrays))
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False)
    folder = folder.absolute()
    with ocp.Checkpointer(handler) as checkpointer:
        temporary = checkpointer.get_temporary_path(folder).get()
        try:
            checkpointer.save(folder, ocp.args.PyTreeSave(traverse_util.unflatten_dict(leaves, sep="/")))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # a finished checkpoint has been renamed


def _check_parameters(source: ParameterSource, s: Structure) -> None:
    problems = [f"parameter {name} is missing" for name in s.shapes if name not in source.arrays]
    problems += [f"parameter {name} is unknown to the model" for name in source.arrays if name not in s.shapes]
    problems += [
        f"parameter {name} has shape {list(array.shape)}, the model's has {list(s.shapes[name])}"
        for name, array in source.arrays.items()
        if name in s.shapes and array.shape != s.shapes[name]
    ]
    if problems:
        more = " …" if len(problems) > 5 else ""
        raise CheckpointError(f"{source.where}: {'; '.join(problems[:5])}{more}")


@dataclasses.dataclass(frozen=True)
class _ParameterLeaf:
    """A parameter to be written, in the place of an array in the tree that Orbax saves."""

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
        """Shape of a chunk: one layer, split along its first axis if it is larger than CHUNK_BYTES."""
        rows, *rest = self.shape if self.layers is None else self.shape[1:]
        parts = math.ceil(rows * math.prod(rest) * self.dtype.itemsize / CHUNK_BYTES)
        inner = (math.ceil(rows / parts), *rest)
        return inner if self.layers is None else (1, *inner)

    def chunks(self) -> Iterator[tuple[tuple, np.ndarray]]:
        """(index, values) of every chunk; reads one layer of `source` at a time."""
        for layer in (None,) if self.layers is None else range(self.layers):
            values, leading = self._read_layer(layer), () if layer is None else (layer,)
            rows = self.chunk[len(leading)]
            for start in range(0, len(values), rows):
                part = slice(start, min(start + rows, len(values)))
                yield (*leading, part), values[part]

    def _read_layer(self, layer: int | None) -> np.ndarray:
        values = self.source.read(self.name, layer)
        shape = self.shape if layer is None else self.shape[1:]
        if (values.shape, values.dtype) != (shape, self.dtype):
            which = "" if layer is None else f", layer {layer}"
            raise CheckpointError(
                f"{self.source.where}: parameter {self.name}{which} is {values.dtype}{list(values.shape)}, "
                f"expected {self.dtype}{list(shape)}"
            )
        return contiguous(values)  # TensorStore, too, is slow with transposed views


class _LeafHandler(ocp.type_handlers.NumpyHandler):
    """Stores leaves as Orbax stores numpy arrays, but reads and writes them chunk by chunk."""

    async def serialize(
        self, values: Sequence[_ParameterLeaf], infos: Sequence[ocp.type_handlers.ParamInfo], args=None
    ) -> Sequence[ocp.future.Future]:
        """Writes everything before it returns, in the caller's thread, so that an error or Ctrl-C stops it at once."""
        writing: collections.deque[tuple[ts.WriteFutures, _ParameterLeaf, int]] = collections.deque()
        in_flight = 0
        try:
            for leaf, info in zip(values, infos, strict=True):
                stored = ts.open(_write_spec(leaf, info), create=True, open=True, context=info.ts_context).result()
                for index, chunk in leaf.chunks():
                    write = stored[index].write(chunk, can_reference_source_data_indefinitely=True)
                    write.commit.force()  # in the background, while the next chunk is read
                    writing.append((write, leaf, chunk.nbytes))
                    in_flight += chunk.nbytes
                    while in_flight > _IN_FLIGHT:
                        in_flight -= _finish_write(writing.popleft())
            while writing:
                _finish_write(writing.popleft())
        finally:
            for write, *_ in writing:  # after an error: files must not appear in a folder that is being removed
                write.exception()
        return []


def _finish_write(write: tuple[ts.WriteFutures, _ParameterLeaf, int]) -> int:
    """Waits for a write and reports it; returns its bytes."""
    future, leaf, nbytes = write
    future.result()
    leaf.progress(nbytes)
    return nbytes


def _write_spec(leaf: _ParameterLeaf, info: ocp.type_handlers.ParamInfo) -> dict:
    """Orbax's TensorStore spec of an array that one process writes chunk by chunk."""
    return ocp.type_handlers.get_json_tspec_write(
        info,
        use_ocdbt=info.is_ocdbt_checkpoint,
        global_shape=leaf.shape,
        local_shape=leaf.chunk,
        dtype=leaf.dtype,
        process_index=jax.process_index(),
    )
