"""Archives: ArrayRecord files, whose entries are read by their number. A prepared dataset is a folder of them.

    street/
      info.json                             {"examples": 3, ...}; data_pipelines/ says what else
      records-00000-of-00001.array_record   an entry is a light record: JSON, as in data/record.py
      media-00000.array_record              an entry is a medium: the bytes of an mp4, a jpeg, ...

    Records("street")[2]                               ->  b'{"id": "a", "image": "media-00000.array_record#17", ...'
    read_entry("street/media-00000.array_record", 17)  ->  b"\\0\\0\\0 ftyp..."

Files are local or mounted: the ArrayRecord library opens nothing else.
"""

import bisect
import functools
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from array_record.python import array_record_module

from molmo2_jax.data.failure import MediaError

OPEN_FILES = 64  # readers a process keeps open; each holds its file's index, 8 bytes an entry
_ONE_ENTRY = "readahead_buffer_size:0,max_parallelism:0"  # reads no neighbours, starts no threads (a fork loses them)


class ArchiveError(ValueError):
    """A prepared dataset that is not whole. The message names folder or file and what is wrong with it."""


def read_entry(path: str | os.PathLike, index: int) -> bytes:
    """Entry `index` (from 0) of an ArrayRecord file. Threads may call it, and processes, forked or spawned.

    Raises MediaError: no such file or entry, a damaged file, a file that is neither local nor mounted.
    """
    path = os.fspath(path)
    reader = _open(path)
    count = reader.num_records()
    if not 0 <= index < count:
        raise MediaError(f"{path}#{index}: the file has {count} entries", "no_file")
    try:
        return reader.read([index])[0]
    except RuntimeError as error:
        raise MediaError(f"{path}#{index}: the file is damaged ({error})", "unreadable") from error


def count_entries(path: str | os.PathLike) -> int:
    """How many entries an ArrayRecord file has. Raises MediaError as `read_entry` does."""
    return _open(os.fspath(path)).num_records()


class Records(Sequence):
    """The light records of a prepared dataset, as JSON bytes by number. It may be pickled: no file is open in it.

    Raises ArchiveError: no such folder, an info.json that is missing or wrong, a shard that is missing, doubled or
    damaged, another number of records than info.json promises.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        self.paths = _shards(self.folder)
        try:
            self.ends = list(itertools.accumulate(count_entries(path) for path in self.paths))
        except MediaError as error:
            raise ArchiveError(str(error)) from error
        if self.ends[-1] != self.info["examples"]:
            promised = f"{self.folder / 'info.json'} says {self.info['examples']}"
            raise ArchiveError(f"{self.folder}: {self.ends[-1]} records are there, but {promised}")

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> bytes:
        """Record `index`, from 0. Raises IndexError, or MediaError where the file is damaged or was taken away."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.folder}: no record {index}, there are {len(self)}")
        shard = bisect.bisect_right(self.ends, index)
        first = self.ends[shard - 1] if shard else 0
        return read_entry(self.paths[shard], index - first)


def _open(path: str):
    """An open reader. A file that was written anew has a reader anew, and so has a process that was forked."""
    if "://" in path:
        raise MediaError(f"{path}: archives are read from local or mounted folders; mount the bucket", "unreadable")
    try:
        found = os.stat(path)
    except OSError as error:
        raise MediaError(f"{path}: no such file", "no_file") from error
    return _reader(path, os.getpid(), found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(OPEN_FILES)
def _reader(path: str, *_identity: int):
    reader = array_record_module.ArrayRecordReader(path, _ONE_ENTRY)
    # What is damaged shows in `ok`, no error: a reader of half a file would have 0 entries, each of 0 bytes.
    if not reader.ok():
        raise MediaError(f"{path}: the file is cut off, damaged or no ArrayRecord file", "unreadable")
    return reader


def _read_info(folder: Path) -> dict:
    path = folder / "info.json"
    try:
        info = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArchiveError(f"{folder}: no prepared dataset is there: {path.name} is missing") from error
    except ValueError as error:
        raise ArchiveError(f"{path}: not JSON: {error}") from error
    examples = info.get("examples") if isinstance(info, dict) else None
    if not isinstance(examples, int) or isinstance(examples, bool) or examples < 1:
        raise ArchiveError(f"{path}: 'examples' is a number from 1, not {examples!r}")
    return info


def _shards(folder: Path) -> list[str]:
    """The files of records in their order: exactly records-00000-of-00002 and records-00001-of-00002."""
    found = sorted(path.name for path in folder.glob("records-*.array_record"))
    if not found:
        raise ArchiveError(f"{folder}: no records-*.array_record is there")
    total = found[0].removesuffix(".array_record").rpartition("-")[2]
    count = int(total) if total.isdecimal() else 0
    expected = [record_shard(index, count) for index in range(count)]
    if found != expected:
        off = sorted(set(found) ^ set(expected))
        raise ArchiveError(f"{folder}: of {found[0]} and its like, missing or too many: {', '.join(off[:5])}")
    return [str(folder / name) for name in found]


def record_shard(index: int, count: int) -> str:
    """Name of a file of records: (0, 2) -> "records-00000-of-00002.array_record"."""
    return f"records-{index:05d}-of-{count:05d}.array_record"


def media_shard(index: int) -> str:
    """Name of a file of media: 3 -> "media-00003.array_record". Records say it, so the count stays out."""
    return f"media-{index:05d}.array_record"
