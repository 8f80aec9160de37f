"""Prepares datasets for training.

    python -m data_pipelines list
    python -m data_pipelines prepare molmo2_cap --rows hf:allenai/Molmo2-Cap --media videos --out data/molmo2_cap
    python -m data_pipelines prepare pixmo_points --rows downloads/pixmo-points --media images --out data/points \\
        --held-out hf:allenai/pixmo-points-eval

`--rows` is the published table: files (.parquet, .jsonl), folders of them, or hf:NAME; `--media` is the folder that its
media were downloaded to. Goes through TFDS (pip install 'molmo2_jax[data]'), whose copy of the records stays in --tfds
if that is given.
"""

import argparse
import itertools
import json
import pathlib
import sys
import tempfile
from collections.abc import Iterable

from data_pipelines import cap, pixmo_points, tables, video_point
from data_pipelines.entry import Entry, PrepareError, Row, Skipped
from data_pipelines.folder import write_folder

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
    prepare_.add_argument("--rows", nargs="+", required=True, help="the published table: files, folders or hf:NAME")
    held_out = "table of the evaluation set whose images are left out, or none; needed where there is one"
    prepare_.add_argument("--held-out", nargs="+", default=[], help=held_out)
    prepare_.add_argument("--media", type=pathlib.Path, required=True, help="folder of its media")
    prepare_.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write")
    prepare_.add_argument("--tfds", type=pathlib.Path, help="keep what TFDS builds here")
    args = parser.parse_args(arguments)
    if args.command == "list":
        for entry in ENTRIES.values():
            print(f"{entry.name:32} {entry.hub} ({entry.license})")
        return 0
    try:
        entry = ENTRIES[args.dataset]
        held_out = read_held_out(entry, args.held_out)
        info = prepare(entry, tables.rows(args.rows, "train"), held_out, args.media, args.out, args.tfds)
    except (PrepareError, FileNotFoundError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    print(json.dumps(info, indent=1))
    return 0


def read_held_out(entry: Entry, sources: list[str]) -> frozenset:
    """What no row of training may have in the entry's held-out column: the values of the evaluation set's table.

    Raises PrepareError where the entry has such a set and `sources` is empty, which is not the same as ["none"].
    """
    if entry.held_out is None:
        if sources:
            raise PrepareError(f"{entry.name}: has no evaluation set to hold out")
        return frozenset()
    column, hub = entry.held_out
    if not sources:
        raise PrepareError(f"{entry.name}: name the table of {hub} with --held-out, or --held-out none to train on it")
    if sources == ["none"]:
        return frozenset()
    found = frozenset(row.get(column) for row in tables.rows(sources, "test"))
    if not found or None in found:
        raise PrepareError(f"{' '.join(sources)}: no table with a column {column}")
    return found


def prepare(
    entry: Entry,
    rows: Iterable[Row],
    held_out: frozenset,
    media: pathlib.Path,
    out: pathlib.Path,
    tfds: pathlib.Path | None,
) -> dict:
    """Published rows -> TFDS -> the folder `out`; returns its info. Raises PrepareError, FileNotFoundError."""
    from data_pipelines import tfds_builder  # here, for who only lists has no TFDS

    if not media.is_dir():
        raise FileNotFoundError(f"{media}: no such folder of media")
    if out.exists():  # before the work, not after it
        raise PrepareError(f"{out} is there already; remove it to prepare {entry.name} again")
    skipped = Skipped()
    made = entry.drafts(entry.check(rows, skipped, held_out), skipped)
    first = next(made, None)
    if first is None:
        raise PrepareError(f"{entry.name}: no record is left; left out were {dict(skipped)}")
    with tempfile.TemporaryDirectory() as temporary:
        built = tfds_builder.builder(entry, itertools.chain([first], made), tfds or pathlib.Path(temporary))
        if built.data_path.exists():  # TFDS would take what is there, whatever rows it was made of
            raise PrepareError(f"{built.data_path} is there already; remove it to prepare {entry.name} again")
        built.download_and_prepare()
        return write_folder(entry, tfds_builder.drafts(built), media, out, skipped)


if __name__ == "__main__":
    sys.exit(main())
