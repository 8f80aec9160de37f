"""Datasets: records by number, from a JSON-lines file or from a prepared folder."""

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from data_pipelines.media.archive import Records
from data_pipelines.records.problems import RecordError
from data_pipelines.records.read import Record, read_record

CACHED_RECORDS = 4096  # of a JSON-lines file: probing a medium again would open its file


class Dataset(Protocol):
    """Records by number. `written_by_hand`: small enough to check every record before a run."""

    written_by_hand: bool

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """Record `index`, from 0. Raises ExampleError where it or its medium cannot be used."""


def open_dataset(source: str) -> Dataset:
    """The dataset at `source`, a JSON-lines file or a prepared folder.

    Raises:
      FileNotFoundError: `source` does not exist.
      RecordError: a file has no records.
      ArchiveError: a folder is incomplete.
    """
    if os.path.isdir(source):
        return PreparedFolder(source)
    if not os.path.isfile(source):
        raise FileNotFoundError(f"{source}: no such records file or prepared folder")
    return JsonLines(source)


class JsonLines:
    """One record per line that is not blank; media are relative to the file's folder."""

    written_by_hand = True

    def __init__(self, path: str):
        self._path = Path(path)
        lines = enumerate(self._path.read_bytes().split(b"\n"), start=1)
        self._lines = [(number, line) for number, line in lines if line.strip()]
        if not self._lines:
            raise RecordError([f"{path}: holds no records"], "bad_record")
        read = functools.partial(_read_line, self._path, self._lines)
        self._read = functools.lru_cache(maxsize=CACHED_RECORDS)(read)

    def __len__(self) -> int:
        return len(self._lines)

    def record(self, index: int) -> Record:
        record = self._read(index)
        number, _ = self._lines[index]
        first = self._first_lines.get(record.id, number)
        if first < number:
            raise RecordError([f"{record.where}: the id is taken by line {first}"], "bad_record")
        return record

    @functools.cached_property
    def _first_lines(self) -> dict[str, int]:
        """{id: the number of the first line with it, from 1}; lines that cannot be parsed have no id."""
        found: dict[str, int] = {}
        for number, line in self._lines:
            try:
                raw = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(raw, dict) and isinstance(raw.get("id"), str):
                found.setdefault(raw["id"], number)
        return found


def _read_line(path: Path, lines: Sequence[tuple[int, bytes]], index: int) -> Record:
    number, line = lines[index]
    return read_record(line, str(path.parent), f"{path}:{number}")


class PreparedFolder:
    """A folder that datasets/core/folder.py has written: records-*.array_record, and media next to them."""

    written_by_hand = False

    def __init__(self, folder: str):
        self._folder = folder
        self._records: Sequence[bytes] = Records(folder)

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return read_record(self._records[index], self._folder, f"{self._folder}[{index}]")
