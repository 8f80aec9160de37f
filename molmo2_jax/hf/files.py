"""Safetensors directories: one file or many with an index, read by rows and written shard by shard.

    config.json   model.safetensors.index.json   model-00001-of-00002.safetensors   model-00002-of-00002.safetensors

Nothing here holds more than one tensor in memory when reading, one shard when writing.
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

from molmo2_jax.hf.config import HfError
from molmo2_jax.models.contiguous import contiguous

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {"F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16)}
_CHECKED = 1 << 22  # numbers looked at together
SHARD_BYTES = 1 << 30  # of a written file; a tensor larger than that is a file of its own


class TensorFiles:
    """The tensors of a directory, by key: shape, dtype, file; and their numbers, a few rows at a time."""

    def __init__(self, folder: pathlib.Path):
        """Reads every file's header.

        Raises:
          HfError: no safetensors, a missing or damaged file, an index and files that do not agree, a dtype that holds
            no weights. Names file and tensor.
        """
        self.folder = folder
        self.arrays: dict[str, jax.ShapeDtypeStruct] = {}
        self._files: dict[str, str] = {}
        for name, expected in _listed(folder).items():
            self._add(name, expected)

    def _add(self, name: str, expected: set[str] | None) -> None:
        path = self.folder / name
        if not path.is_file():
            raise HfError(f"{path}: the index names this file, which is missing")
        with _opened(path) as file:
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
        """How errors name a tensor: "DIR/model.safetensors: tensor lm_head.weight"."""
        return f"{self.folder / self._files[key]}: tensor {key}"

    def read(self, key: str, rows: slice = slice(None)) -> np.ndarray:
        """Rows of a tensor (one at least), as stored. Raises HfError where one of the numbers is not finite."""
        # Opened for every tensor: pages of an open file would stay mapped, and count as memory of this process.
        with _opened(self.folder / self._files[key]) as file:
            values = file.get_slice(key)[slice(*rows.indices(self.arrays[key].shape[0]))]
        if not all_finite(values):
            raise HfError(f"{self.where(key)}: {(~np.isfinite(values)).sum()} of its numbers are NaN or infinite")
        return values


def all_finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinite; a little at a time, for numpy makes a mask as large as what it looks at."""
    if values.ndim == 0 or values.size <= _CHECKED:
        return bool(np.isfinite(values).all())
    rows = max(1, _CHECKED * len(values) // values.size)
    return all(np.isfinite(values[i : i + rows]).all() for i in range(0, len(values), rows))


def _listed(folder: pathlib.Path) -> dict[str, set[str] | None]:
    """{file: the keys the index says it has, or None where there is no index}."""
    if (folder / INDEX).is_file():
        try:
            weights = dict(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
        except (ValueError, KeyError, TypeError) as error:
            raise HfError(f"{folder / INDEX}: not an index of safetensors files ({error!r})") from error
        files: dict[str, set[str]] = {}
        for key, name in weights.items():
            if not isinstance(name, str) or pathlib.PurePath(name).name != name:
                raise HfError(f"{folder / INDEX}: tensor {key} is said to be in {name!r}, outside this folder")
            files.setdefault(name, set()).add(key)
        return files
    if (folder / SINGLE).is_file():
        return {SINGLE: None}
    raise HfError(f"{folder}: neither {INDEX} nor {SINGLE} is there; weights are read from safetensors files only")


def _opened(path: pathlib.Path):
    try:
        return safetensors.safe_open(path, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise HfError(f"{path}: damaged, or cut off while it was copied ({error})") from error


@contextlib.contextmanager
def appearing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write to, which becomes `target` when the context ends well and disappears otherwise.

    Raises:
      HfError: there is something at `target`, or no folder can be made there.
    """
    if target.exists():
        raise HfError(f"{target}: exists; name a folder that is not there yet")
    unfinished = target.with_name(f".{target.name}.unfinished")
    new_folders = [folder for folder in unfinished.parents if not folder.exists()]
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise HfError(f"{target}: cannot be made ({error})") from error
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
    """Writes `read(key)` of every key to `folder`, as one file or, from SHARD_BYTES on, as several with an index.

    Raises ValueError where `read` gives another shape or dtype than was announced.
    """
    shards = list(_shards(arrays))
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = [SINGLE] if len(shards) == 1 else names
    for name, keys in zip(names, shards, strict=True):
        tensors = {}
        for key in keys:
            value = contiguous(read(key))
            if (value.shape, value.dtype) != (arrays[key].shape, arrays[key].dtype):
                raise ValueError(f"{key}: {value.dtype}{value.shape} where {arrays[key]} was announced")
            tensors[key] = value
            progress(value.nbytes)
        safetensors.numpy.save_file(tensors, folder / name, metadata={"format": "pt"})
        (folder / name).chmod(0o644)  # the library keeps its files to their owner
    if len(shards) > 1:
        weights = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        index = {"metadata": {"total_size": sum(_nbytes(a) for a in arrays.values())}, "weight_map": weights}
        (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _shards(arrays: Mapping[str, jax.ShapeDtypeStruct]) -> Iterator[Sequence[str]]:
    """Keys in order, cut where a file would grow beyond SHARD_BYTES."""
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
