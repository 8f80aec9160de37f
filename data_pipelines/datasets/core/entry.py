"""An entry: everything that is particular to one dataset. What all datasets share is in the other files of core/.

Entry(name="pixmo_points_train", hub="allenai/pixmo-points", license="ODC-BY-1.0",
      fields=("image_url", "label", "points", ...), drafts=drafts)

published rows  --entry.check-->  usable rows  --entry.drafts-->  drafts (records/write.py)  --prepare.py-->  folder
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

from data_pipelines.records.write import Draft

Row = Mapping[str, object]  # a row of the published table


class PrepareError(ValueError):
    """A dataset cannot be prepared. The message names the dataset or file, and what is wrong with it."""


class Skipped(collections.Counter):
    """Number of rows or records that were left out, by reason: skipped["annotator unsure"] += 1."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One prepared dataset.

    `name`: the recipe's name (experiments/_mixtures.py). `hub`: the repository of the published table. `fields`: the
    columns that every table must have; a row with a null in one of them is left out, unless the column is `nullable`.
    `drafts(rows, skipped)`: makes examples of the other rows, and counts the rows it leaves out. It is a pure function:
    it opens no file, and draws only by a hash of the row's content. `held_out`: a column and an evaluation set; rows
    with a value of the evaluation set in this column are left out.
    """

    name: str
    hub: str
    license: str
    fields: tuple[str, ...]
    drafts: Callable[[Iterable[Row], Skipped], Iterator[Draft]]
    nullable: tuple[str, ...] = ()
    held_out: tuple[str, str] | None = None

    def check(self, rows: Iterable[Row], skipped: Skipped, held_out: frozenset = frozenset()) -> Iterator[Row]:
        """The rows without a forbidden null that are not `held_out`.

        Raises PrepareError, naming row and column, for a row without one of the columns.
        """
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
