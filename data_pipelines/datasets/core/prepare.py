"""Prepares one dataset: published rows -> drafts -> TFDS -> the folder that training reads.

Needs TFDS and pyarrow (pip install 'molmo2_jax[data]').
"""

import itertools
import pathlib
import tempfile
from collections.abc import Iterable, Sequence

from data_pipelines.datasets.core import tables, tfds_builder
from data_pipelines.datasets.core.entry import Entry, PrepareError, Row, Skipped
from data_pipelines.datasets.core.folder import write_folder


def read_held_out(entry: Entry, sources: Sequence[str]) -> frozenset:
    """The values of the evaluation set's table in the entry's held-out column; rows with one of them are left out.

    ["none"] gives no values. Raises PrepareError if the entry has an evaluation set and `sources` is empty, if it has
    none and `sources` is not empty, or if the table lacks the column.
    """
    if entry.held_out is None:
        if sources:
            raise PrepareError(f"{entry.name}: has no evaluation set to hold out; omit --held-out")
        return frozenset()
    column, hub = entry.held_out
    if not sources:
        raise PrepareError(f"{entry.name}: name the table of {hub} with --held-out, or --held-out none to train on it")
    if sources == ["none"]:
        return frozenset()
    values = frozenset(row.get(column) for row in tables.rows(sources, "test"))
    if not values or None in values:
        raise PrepareError(f"{' '.join(sources)}: no table with a column {column}")
    return values


def prepare(
    entry: Entry,
    rows: Iterable[Row],
    held_out: frozenset,
    media: pathlib.Path,
    out: pathlib.Path,
    tfds: pathlib.Path | None,
) -> dict:
    """Writes the folder `out` from published rows and the files of the folder `media`; returns its info.

    `tfds`: where to keep the drafts as TFDS stores them, None to delete them. Raises PrepareError, FileNotFoundError.
    """
    if not media.is_dir():
        raise FileNotFoundError(f"{media}: no such folder of media")
    if out.exists():  # checked before the work, not only after it
        raise PrepareError(f"{out} already exists; remove it to prepare {entry.name} again")
    skipped = Skipped()
    drafts = entry.drafts(entry.check(rows, skipped, held_out), skipped)
    first = next(drafts, None)
    if first is None:
        raise PrepareError(f"{entry.name}: no record is left; left out: {dict(skipped)}")
    with tempfile.TemporaryDirectory() as temporary:
        built = tfds_builder.builder(entry, itertools.chain([first], drafts), tfds or pathlib.Path(temporary))
        if built.data_path.exists():  # TFDS would use what it has, from whichever rows that was built
            raise PrepareError(f"{built.data_path} already exists; remove it to prepare {entry.name} again")
        built.download_and_prepare()
        return write_folder(entry, tfds_builder.stored_drafts(built), media, out, skipped)
