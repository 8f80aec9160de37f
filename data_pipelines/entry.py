"""An entry: all that is particular to one dataset. What is common to them is in folder.py and tfds_builder.py.

    Entry(name="pixmo_points", hub="allenai/pixmo-points", license="ODC-BY", media="image",
          fields=("image_url", "label", "points", ...), drafts=a function)

A draft is a light record (molmo2_jax/data/record.py) that names its media by file; whoever writes it stores each medium
once, and puts in its place where it lies and how large it is:

    {"id": "9f-0", "image": "9f.jpg", ...}   ->   {"id": "9f-0", "image": {"at": "media-00000.array_record#4", ...

A medium that came from a URL may say what it was when it was annotated: {"file": "9f.jpg", "sha256": "2cf24dba..."}.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

from molmo2_jax.data.complaints import is_number

Row = Mapping[str, object]  # a row of the published table
Draft = dict


class PrepareError(ValueError):
    """A dataset that cannot be prepared."""


class Skipped(collections.Counter):
    """What was left out, by reason: skipped["annotator unsure"] += 1."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One prepared dataset.

    `fields` are the columns that every table must have; a row in which one is null is left out, unless the column is
    one of `nullable`. `drafts(rows, skipped)` makes light records of the other rows and counts what it leaves out. It
    is a pure function: no file is opened, nothing is drawn but by a hash of what is in the row. `held_out` is a column
    and the evaluation set whose values in it no row of training may have.
    """

    name: str
    hub: str  # repository of the published table
    license: str
    fields: tuple[str, ...]
    drafts: Callable[[Iterable[Row], Skipped], Iterator[Draft]]
    nullable: tuple[str, ...] = ()
    held_out: tuple[str, str] | None = None

    def check(self, rows: Iterable[Row], skipped: Skipped, held_out: frozenset = frozenset()) -> Iterator[Row]:
        """The rows that are whole and not `held_out`. Raises PrepareError that names a row and the column it lacks."""
        for number, row in enumerate(rows):
            missing = [field for field in self.fields if field not in row]
            if missing:
                raise PrepareError(f"{self.name}: row {number} has no {', '.join(missing)}; it has {', '.join(row)}")
            null = next((field for field in self.fields if row[field] is None and field not in self.nullable), None)
            if null is not None:
                skipped[f"no {null}"] += 1
            elif held_out and row[self.held_out[0]] in held_out:
                skipped["held out for evaluation"] += 1
            else:
                yield row


def is_place(place: object) -> bool:
    """Whether it is a point as tables have them: {"x": 10.5, "y": 20.0}, two finite numbers."""
    return isinstance(place, Mapping) and all(is_number(place.get(axis)) for axis in ("x", "y"))
