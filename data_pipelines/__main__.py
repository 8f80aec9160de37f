"""Prepares datasets for training.

    python -m data_pipelines list
    python -m data_pipelines prepare pixmo_points --rows=train.parquet --media=images --out=gs-mount/pixmo_points

`--rows` is the published table as .parquet or .jsonl, `--media` the folder its media were downloaded to. Goes through
TFDS (pip install 'molmo2_jax[data]'), whose copy of the records stays in --tfds if that is given.
"""

import argparse
import json
import pathlib
import sys
import tempfile
from collections.abc import Iterator

from data_pipelines import cap, pixmo_points, video_point
from data_pipelines.entry import Entry, Row, Skipped
from data_pipelines.folder import PrepareError, write_folder
from molmo2_jax.data.archive import ArchiveError

ENTRIES: dict[str, Entry] = {
    entry.name: entry for module in (video_point, cap, pixmo_points) for entry in module.ENTRIES
}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1, and one message, when a dataset cannot be prepared."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="datasets that can be prepared")
    prepare_ = commands.add_parser("prepare", help="prepare one of them")
    prepare_.add_argument("dataset", choices=sorted(ENTRIES))
    prepare_.add_argument("--rows", type=pathlib.Path, required=True, help="the published table, .parquet or .jsonl")
    prepare_.add_argument("--media", type=pathlib.Path, required=True, help="folder of its media")
    prepare_.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write")
    prepare_.add_argument("--tfds", type=pathlib.Path, help="keep what TFDS builds here")
    args = parser.parse_args(arguments)
    if args.command == "list":
        for entry in ENTRIES.values():
            print(f"{entry.name:32} {entry.hub} ({entry.license})")
        return 0
    try:
        info = prepare(ENTRIES[args.dataset], args.rows, args.media, args.out, args.tfds)
    except (PrepareError, ArchiveError, FileNotFoundError, KeyError) as error:
        print(f"prepare: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 1
    print(json.dumps(info, indent=1))
    return 0


def prepare(
    entry: Entry, rows: pathlib.Path, media: pathlib.Path, out: pathlib.Path, tfds: pathlib.Path | None
) -> dict:
    """Published rows -> TFDS -> the folder `out`; returns its info. Raises PrepareError, KeyError for a column."""
    from data_pipelines import tfds_builder  # here, for who only lists has no TFDS

    if not media.is_dir():
        raise FileNotFoundError(f"{media}: no such folder of media")
    skipped = Skipped()
    with tempfile.TemporaryDirectory() as temporary:
        built = tfds_builder.builder(entry, read_rows(rows), tfds or pathlib.Path(temporary), skipped)
        built.download_and_prepare()
        return write_folder(entry, tfds_builder.drafts(built), media, out, skipped)


def read_rows(path: pathlib.Path) -> Iterator[Row]:
    """The rows of a published table. Raises FileNotFoundError, PrepareError for a file of another kind."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table")
    if path.suffix == ".jsonl":
        return map(json.loads, path.read_text(encoding="utf-8").splitlines())
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.ParquetFile(path)
        return (row for batch in table.iter_batches() for row in batch.to_pylist())
    raise PrepareError(f"{path}: a table is .parquet or .jsonl")


if __name__ == "__main__":
    sys.exit(main())
