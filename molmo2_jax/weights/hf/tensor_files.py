"""Directories of safetensors: one file, or several with an index. Read by rows, written file by file.

    config.json   model.safetensors.index.json   model-00001-of-00002.safetensors   model-00002-of-00002.safetensors

Reading holds at most one tensor in memory, writing at most one file.
"""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from molmo2_jax.weights.contiguous import contiguous
from molmo2_jax.weights.hf.config import HfError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
_CHECK_SIZE = 1 << 22  # values checked at a time
SHARD_BYTES = 1 << 30  # largest written file; a larger tensor gets a file of its own


class TensorFiles:
    """The tensors of a directory by key: shape, dtype and file of each, and reading some of its rows."""

    def __init__(self, folder: pathlib.Path):
        """Reads every file's header.

        Raises:
          HfError: no safetensors, a missing or damaged file, an index that disagrees with a file, or a dtype that is
            not one of DTYPES. Names file and tensor.
        """
        self.folder = folder
        self.arrays: dict[str, jax.ShapeDtypeStruct] = {}
        self._files: dict[str, str] = {}
        for name, expected in _files_and_keys(folder).items():
            self._read_header(name, expected)

    def _read_header(self, name: str, expected: set[str] | None) -> None:
        path = self.folder / name
        if not path.is_file():
            raise HfError(f"{path}: the index names this file, which is missing")
        with _open_safetensors(path) as file:
            keys = set(file.keys())
            if expected is not None and keys != expected:
                missing, extra = sorted(expected - keys), sorted(keys - expected)
                raise HfError(f"{path}: {INDEX} disagrees: missing {missing[:3]}, not in the index {extra[:3]}")
            for key in keys:
                found = file.get_slice(key)
                if found.get_dtype() not in DTYPES:
                    raise HfError(
                        f"{path}: tensor {key} is of {found.get_dtype()}; weights are one of {sorted(DTYPES)}"
                    )
                self.arrays[key] = jax.ShapeDtypeStruct(found.get_shape(), DTYPES[found.get_dtype()])
                self._files[key] = name

    def where(self, key: str) -> str:
        """The tensor's name in errors: "DIR/model.safetensors: tensor lm_head.weight"."""
        return f"{self.folder / self._files[key]}: tensor {key}"

    def read(self, key: str, rows: slice = slice(None)) -> np.ndarray:
        """Rows of a tensor (at least one), in its stored dtype. Raises HfError if a value is not finite."""
        # Opened for every read: the pages of an open file stay mapped and count as memory of this process.
        with _open_safetensors(self.folder / self._files[key]) as file:
            values = file.get_slice(key)[slice(*rows.indices(self.arrays[key].shape[0]))]
        if not all_finite(values):
            raise HfError(f"{self.where(key)}: {(~np.isfinite(values)).sum()} of its values are NaN or infinite")
        return values


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite. Checks a few rows at a time: numpy's mask is as large as what it checks."""
    if values.ndim == 0 or values.size <= _CHECK_SIZE:
        return bool(np.isfinite(values).all())
    rows = max(1, _CHECK_SIZE * len(values) // values.size)
    return all(np.isfinite(values[i : i + rows]).all() for i in range(0, len(values), rows))


def _files_and_keys(folder: pathlib.Path) -> dict[str, set[str] | None]:
    """{file: its keys according to the index, or None without an index}."""
    if (folder / INDEX).is_file():
        try:
            weights = dict(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            raise HfError(f"{folder / INDEX}: not an index of safetensors files ({error!r})") from error
        files: dict[str, set[str]] = {}
        for key, name in weights.items():
            if not isinstance(name, str) or pathlib.PurePath(name).name != name:
                raise HfError(f"{folder / INDEX}: tensor {key} is in {name!r}, which is outside this folder")
            files.setdefault(name, set()).add(key)
        return files
    if (folder / SINGLE).is_file():
        return {SINGLE: None}
    raise HfError(f"{folder}: neither {INDEX} nor {SINGLE} is there; weights are read from safetensors files only")


def _open_safetensors(path: pathlib.Path):
    try:
        return safetensors.safe_open(path, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise HfError(f"{path}: damaged, or cut off while it was copied ({error})") from error


@contextlib.contextmanager
def atomic_directory(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder that is renamed to `target` at the end of the context, or removed if an error is raised.

    Raises:
      HfError: `target` exists, or no folder can be created there.
    """
    if target.exists():
        raise HfError(f"{target}: exists; name a folder that does not exist yet")
    unfinished = target.with_name(f".{target.name}.unfinished")
    new_folders = [folder for folder in unfinished.parents if not folder.exists()]
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a run that was killed
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise HfError(f"{target}: cannot be created ({error})") from error
    try:
        yield unfinished
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished)
        for folder in new_folders:
            folder.rmdir()
        raise


def write_tensors(
    folder: pathlib.Path,
    arrays: Mapping[str, jax.ShapeDtypeStruct],
    read: Callable[[str], np.ndarray],
    progress: Callable[[int], None],
) -> None:
    """Writes `read(key)` for every key to `folder`: as one file, or above SHARD_BYTES as several with an index.

    Args:
      arrays: {key: shape and dtype}, in the order in which they are written.
      progress: called with the bytes of each tensor that was read.

    Raises:
      ValueError: `read` returns another shape or dtype than `arrays` has.
    """
    shards = list(_split_into_files(arrays))
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = [SINGLE] if len(shards) == 1 else names
    for name, keys in zip(names, shards, strict=True):
        tensors = {}
        for key in keys:
            value = contiguous(read(key))
            if (value.shape, value.dtype) != (arrays[key].shape, arrays[key].dtype):
                raise ValueError(f"{key}: {value.dtype}{value.shape} where {arrays[key]} is expected")
            tensors[key] = value
            progress(value.nbytes)
        safetensors.numpy.save_file(tensors, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(0o644)  # the library creates files that only their owner can read
    if len(shards) > 1:
        weights = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        index = {"metadata": {"total_size": sum(_nbytes(a) for a in arrays.values())}, "weight_map": weights}
        (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _split_into_files(arrays: Mapping[str, jax.ShapeDtypeStruct]) -> Iterator[Sequence[str]]:
    """The keys of each file, in order: a new file starts where the last one would exceed SHARD_BYTES."""
    keys, size = [], 0
    for key, array in arrays.items():
        if keys and size + _nbytes(array) > SHARD_BYTES:
            yield keys
            keys, size = [], 0
        keys.append(key)
        size += _nbytes(array)
    yield keys


def _nbytes(array: jax.ShapeDtypeStruct) -> int:
    return array.size * array.dtype.itemsize
