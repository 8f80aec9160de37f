"""Reads published tables: rows from files, from folders of files, or from the Hugging Face Hub.

    rows(["rows.parquet"], "train")             a table, .parquet or .jsonl
    rows(["downloads/pixmo-points"], "train")   a folder: every train-*.parquet and train-*.jsonl in it, at any depth
    rows(["hf:allenai/pixmo-points"], "train")  downloaded to the Hub's own cache, then read as a folder

A published table is split into files and configs ("object/train-00000-of-00001.parquet"); all of them are read.
"""

import json
import pathlib
from collections.abc import Iterator, Sequence

import huggingface_hub

from data_pipelines.datasets.core.entry import PrepareError, Row


def rows(sources: Sequence[str], split: str) -> Iterator[Row]:
    """The rows of all sources in the given order, the files of a folder by name. `split` selects files of folders.

    Raises FileNotFoundError, or PrepareError naming the file (and line) that is not a table.
    """
    for path in [path for source in sources for path in _table_files(source, split)]:
        yield from _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)


def _table_files(source: str, split: str) -> list[pathlib.Path]:
    patterns = [f"{split}-*.parquet", f"{split}-*.jsonl"]  # how the Hub names them
    folder = _download(source.removeprefix("hf:"), patterns) if source.startswith("hf:") else pathlib.Path(source)
    if not folder.is_dir():
        if not folder.is_file():
            raise FileNotFoundError(f"{source}: no such table")
        if folder.suffix not in (".parquet", ".jsonl"):
            raise PrepareError(f"{source}: a table is .parquet or .jsonl")
        return [folder]
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern))
    if not found:
        raise FileNotFoundError(f"{source}: no {' or '.join(patterns)} in it")
    return found


def _download(name: str, patterns: list[str]) -> pathlib.Path:
    allowed = [f"{folder}{pattern}" for folder in ("", "*/") for pattern in patterns]
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, repo_type="dataset", allow_patterns=allowed))
    except (OSError, ValueError) as error:  # an unknown name, no permission, no connection; an invalid name
        raise PrepareError(f"hf:{name}: cannot be downloaded from the Hub ({error})") from error


def _parquet_rows(path: pathlib.Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise PrepareError(f"{path}: the table cannot be read ({error})") from error


def _json_rows(path: pathlib.Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise PrepareError(f"{path}:{number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise PrepareError(f"{path}:{number}: a row is a JSON object, not {type(row).__name__}")
            yield row
