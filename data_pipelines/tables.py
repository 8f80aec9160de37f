"""Published tables: rows from files, folders of files, or the hub.

    rows(["rows.parquet"], "train")             a table, .parquet or .jsonl
    rows(["downloads/pixmo-points"], "train")   a folder: every train-*.parquet and train-*.jsonl in it, at any depth
    rows(["hf:allenai/pixmo-points"], "train")  downloaded from the hub into the hub's own cache, then as a folder

A dataset's table comes in pieces and configs ("object/train-00000-of-00001.parquet"); its rows are those of them all.
"""

import json
import pathlib
from collections.abc import Iterator, Sequence

import huggingface_hub

from data_pipelines.entry import PrepareError, Row


def rows(sources: Sequence[str], split: str) -> Iterator[Row]:
    """The rows of all sources, in the order given, a folder's files by name; of folders only those of the split.

    Raises FileNotFoundError, or PrepareError that names the file (and line) that is no table.
    """
    for path in [path for source in sources for path in _files(source, split)]:
        yield from _parquet(path) if path.suffix == ".parquet" else _json_lines(path)


def _files(source: str, split: str) -> list[pathlib.Path]:
    pieces = [f"{split}-*.parquet", f"{split}-*.jsonl"]  # how the hub names them
    folder = _from_hub(source.removeprefix("hf:"), pieces) if source.startswith("hf:") else pathlib.Path(source)
    if not folder.is_dir():
        if not folder.is_file():
            raise FileNotFoundError(f"{source}: no such table")
        if folder.suffix not in (".parquet", ".jsonl"):
            raise PrepareError(f"{source}: a table is .parquet or .jsonl")
        return [folder]
    found = sorted(path for pattern in pieces for path in folder.rglob(pattern))
    if not found:
        raise FileNotFoundError(f"{source}: no {' or '.join(pieces)} in it")
    return found


def _from_hub(name: str, pieces: list[str]) -> pathlib.Path:
    patterns = [f"{folder}{piece}" for folder in ("", "*/") for piece in pieces]
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, repo_type="dataset", allow_patterns=patterns))
    except (OSError, ValueError) as error:  # an unknown name, a closed door, a dead connection; no name at all
        raise PrepareError(f"hf:{name}: not to be had from the hub ({error})") from error


def _parquet(path: pathlib.Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise PrepareError(f"{path}: the table cannot be read ({error})") from error


def _json_lines(path: pathlib.Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise PrepareError(f"{path}:{number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise PrepareError(f"{path}:{number}: a row is a JSON object, not {type(row).__name__}")
            yield row
