"""Datasets: light records by number, from a JSON-lines file that somebody wrote or from a prepared folder."""

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from molmo2_jax.data.archive import Records
from molmo2_jax.data.complaints import RecordError
from molmo2_jax.data.record import Record, read_record


class Dataset(Protocol):
    """`written_by_hand`: small, and worth checking record by record before a run."""

    written_by_hand: bool

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """Record `index`, from 0. Raises ExampleError where it or its medium cannot be used."""


def open_dataset(source: str) -> Dataset:
    """The dataset at `source`, a JSON-lines file or a prepared folder.

    Raises FileNotFoundError where there is nothing, RecordError for a file without records, ArchiveError for a folder
    that is not whole.
    """
    if os.path.isdir(source):
        return PreparedFolder(source)
    if not os.path.isfile(source):
        raise FileNotFoundError(f"{source}: no such records file or prepared folder")
    return JsonLines(source)


class JsonLines:
    """One record a line; media are relative to the file's folder."""

    written_by_hand = True

    def __init__(self, path: str):
        self._path = Path(path)
        self._lines = self._path.read_bytes().split(b"\n")
        if self._lines[-1] == b"":  # the newline that ends the last record
            self._lines.pop()
        if not self._lines:
            raise RecordError([f"{path}: holds no records"], "bad_record")

    def __len__(self) -> int:
        return len(self._lines)

    def record(self, index: int) -> Record:
        where = f"{self._path}:{index + 1}"
        record = self._read(index, where)
        first = self._first_lines.get(record.id, index)
        if first < index:
            raise RecordError([f"{record.where}: the id is taken by line {first + 1}"], "bad_record")
        return record

    @functools.lru_cache(maxsize=4096)  # noqa: B019, a dataset lives as long as the run; probing a medium again costs
    def _read(self, index: int, where: str) -> Record:
        return read_record(self._lines[index], str(self._path.parent), where)

    @functools.cached_property
    def _first_lines(self) -> dict[str, int]:
        """The line that each id comes in first; lines that cannot be read have none."""
        found: dict[str, int] = {}
        for number, line in enumerate(self._lines):
            try:
                raw = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(raw, dict) and isinstance(raw.get("id"), str):
                found.setdefault(raw["id"], number)
        return found


class PreparedFolder:
    """What the builders of data_pipelines/ write: records-*.array_record and media beside them."""

    written_by_hand = False

    def __init__(self, folder: str):
        self._folder = folder
        self._records: Sequence[bytes] = Records(folder)

    def __len__(self) -> int:
        return len(self._records)

    def record(self, index: int) -> Record:
        return read_record(self._records[index], self._folder, f"{self._folder}[{index}]")
