"""Archives: ArrayRecord files, whose entries are read by index. A prepared dataset is a folder of them.

    street/
      info.json                             {"examples": 3, ...}; written by datasets/core/folder.py
      records-00000-of-00001.array_record   an entry is a record: JSON, as in records/read.py
      media-00000.array_record              an entry is a media file: the bytes of an mp4, a jpeg, ...

    Records("street")[2]                               ->  b'{"id": "a", "image": "media-00000.array_record#17", ...'
    read_entry("street/media-00000.array_record", 17)  ->  b"\\0\\0\\0 ftyp..."

The files must be local or mounted: the ArrayRecord library opens nothing else.
"""

import bisect
import functools
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from array_record.python import array_record_module

from data_pipelines.errors import MediaError

OPEN_FILES = 64  # readers that a process keeps open; each holds the index of its file, 8 bytes per entry
_ONE_ENTRY = "readahead_buffer_size:0,max_parallelism:0"  # no reading ahead, and no threads, which a fork would lose


class ArchiveError(ValueError):
    """A prepared dataset is incomplete or damaged. The message names the folder or file and the problem."""


def read_entry(path: str | os.PathLike, index: int) -> bytes:
    """Entry `index` (from 0) of an ArrayRecord file. Safe to call from threads and from forked or spawned processes.

    Raises:
      MediaError: the file or entry does not exist, or the file is damaged, or neither local nor mounted.
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
    """The number of entries of an ArrayRecord file. Raises MediaError as `read_entry` does."""
    return _open(os.fspath(path)).num_records()


class Records(Sequence):
    """The records of a prepared dataset, as JSON bytes by index. It can be pickled, since it keeps no file open.

    Raises:
      ArchiveError: the folder does not exist, info.json is missing or invalid, a shard is missing, extra or damaged, or
        the number of records differs from info.json's.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        self.paths = _record_shards(self.folder)
        try:
            self.ends = list(itertools.accumulate(count_entries(path) for path in self.paths))
        except MediaError as error:
            raise ArchiveError(str(error)) from error
        if self.ends[-1] != self.info["examples"]:
            expected = f"{self.folder / 'info.json'} lists {self.info['examples']}"
            raise ArchiveError(f"{self.folder}: it has {self.ends[-1]} records, but {expected}; prepare it again")

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> bytes:
        """Record `index`, from 0. Raises IndexError, or MediaError if the file was damaged or deleted meanwhile."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.folder}: no record {index}, it has {len(self)}")
        shard = bisect.bisect_right(self.ends, index)
        first = self.ends[shard - 1] if shard else 0
        return read_entry(self.paths[shard], index - first)


def _open(path: str):
    """A cached reader. A file that was replaced gets a new reader, and so does a forked process."""
    if "://" in path:
        raise MediaError(f"{path}: archives are read from local or mounted folders; mount the bucket", "unreadable")
    try:
        found = os.stat(path)
    except OSError as error:
        raise MediaError(f"{path}: no such file", "no_file") from error
    return _open_reader(path, os.getpid(), found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(OPEN_FILES)
def _open_reader(path: str, *_identity: int):
    reader = array_record_module.ArrayRecordReader(path, _ONE_ENTRY)
    # Damage raises no error, it only clears `ok`: a reader of half a file would report 0 entries of 0 bytes.
    if not reader.ok():
        raise MediaError(f"{path}: the file is cut off, damaged or not an ArrayRecord file", "unreadable")
    return reader


def _read_info(folder: Path) -> dict:
    path = folder / "info.json"
    try:
        info = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArchiveError(f"{folder}: not a prepared dataset: {path.name} is missing") from error
    except ValueError as error:
        raise ArchiveError(f"{path}: not JSON: {error}") from error
    examples = info.get("examples") if isinstance(info, dict) else None
    if not isinstance(examples, int) or isinstance(examples, bool) or examples < 1:
        raise ArchiveError(f"{path}: 'examples' must be an integer of at least 1, not {examples!r}")
    return info


def _record_shards(folder: Path) -> list[str]:
    """The record files in order: exactly records-00000-of-00002 and records-00001-of-00002, for example."""
    found = sorted(path.name for path in folder.glob("records-*.array_record"))
    if not found:
        raise ArchiveError(f"{folder}: it has no records-*.array_record; prepare it again")
    total = found[0].removesuffix(".array_record").rpartition("-")[2]
    count = int(total) if total.isdecimal() else 0
    expected = [record_shard(index, count) for index in range(count)]
    if found != expected:
        wrong = sorted(set(found) ^ set(expected))
        raise ArchiveError(f"{folder}: record files are missing or do not belong to {found[0]}: {', '.join(wrong[:5])}")
    return [str(folder / name) for name in found]


def record_shard(index: int, count: int) -> str:
    """Name of a record file: (0, 2) -> "records-00000-of-00002.array_record"."""
    return f"records-{index:05d}-of-{count:05d}.array_record"


def media_shard(index: int) -> str:
    """Name of a media file: 3 -> "media-00003.array_record". Records refer to it, so it does not contain the count."""
    return f"media-{index:05d}.array_record"
