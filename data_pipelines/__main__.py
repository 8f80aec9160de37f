"""Prepares datasets for training.

    python -m data_pipelines list
    python -m data_pipelines prepare vixmo3_top_level_captions_min_3 --rows hf:allenai/Molmo2-Cap \\
        --media videos --out data/vixmo3_top_level_captions_min_3
    python -m data_pipelines prepare pixmo_points_train --rows downloads/pixmo-points \\
        --held-out hf:allenai/pixmo-points-eval --media images --out data/pixmo_points_train

A dataset has the name of the recipe (experiments/_mixtures.py): training looks for it in the folder of that name.
Preparing needs TFDS: pip install 'molmo2_jax[data]'.
"""

import argparse
import json
import pathlib
import sys

from data_pipelines.datasets.catalog import ENTRIES
from data_pipelines.datasets.core.entry import PrepareError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1, after one message, when a dataset cannot be prepared."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the datasets, their sources and licenses")
    prepare = commands.add_parser("prepare", help="write the folder of one dataset")
    prepare.add_argument("dataset", choices=sorted(ENTRIES), metavar="DATASET", help="a name that `list` prints")
    rows = "the published table: .parquet or .jsonl files, folders with train-* files, or hf:NAME"
    prepare.add_argument("--rows", nargs="+", required=True, help=rows)
    held_out = "the table of the evaluation set, whose images are left out, or none; required if there is such a set"
    prepare.add_argument("--held-out", nargs="+", default=[], help=held_out)
    prepare.add_argument("--media", type=pathlib.Path, required=True, help="the folder of its downloaded media")
    prepare.add_argument("--out", type=pathlib.Path, required=True, help="the folder to write")
    prepare.add_argument("--tfds", type=pathlib.Path, help="a folder to keep the dataset that TFDS builds on the way")
    args = parser.parse_args(arguments)
    if args.command == "list":
        for entry in ENTRIES.values():
            print(f"{entry.name:32} {entry.hub} ({entry.license})")
        return 0
    return _prepare(args)


def _prepare(args: argparse.Namespace) -> int:
    from data_pipelines.datasets.core import prepare, tables  # not above: `list` works without TFDS

    entry = ENTRIES[args.dataset]
    try:
        held_out = prepare.read_held_out(entry, args.held_out)
        info = prepare.prepare(entry, tables.rows(args.rows, "train"), held_out, args.media, args.out, args.tfds)
    except (PrepareError, FileNotFoundError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    print(json.dumps(info, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
