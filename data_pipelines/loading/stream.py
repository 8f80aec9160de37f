"""Streams: the endless examples of one row of the global batch, in packed windows.

A stream draws a window of examples (loading/draws.py chooses them), describes them and packs them into rows.
With a pool of 4 and rows of about two examples:

    window     0                  1
    drawn      a7 a3 b0 a5        a1 b4 a2 a6
    rows       [a7 b0] [a3 a5]    [a1 a6] [b4] [a2]
    state      window 1, row 2: the next row is [a2]
"""

import dataclasses
from collections.abc import Callable

from data_pipelines.errors import ExampleError
from data_pipelines.loading.draws import Draw, DrawSchedule
from data_pipelines.packing.pack import Size, pack
from data_pipelines.packing.schema import RowShape
from data_pipelines.sequence.example import Example


@dataclasses.dataclass(frozen=True)
class Unusable:
    """An example that is skipped: its dataset, the error message, and the reason, a key of errors.REASONS."""

    dataset: str
    message: str
    reason: str


class Stream:
    """The examples of row `row` of the global batch.

    Args:
      describe: the examples of a draw, each of which fits a row; raises ExampleError.
      shards: vision shards of a row.
    """

    def __init__(
        self, row: int, schedule: DrawSchedule, describe: Callable[[Draw], list[Example]], shape: RowShape, shards: int
    ):
        self.row = row
        self._schedule, self._describe, self._shape, self._shards = schedule, describe, shape, shards

    def window(self, index: int) -> tuple[list[list[Example]], list[Unusable]]:
        """The packed rows of window `index`, and its draws that cannot be described."""
        examples: list[Example] = []
        unusable = []
        for draw in self._schedule.window(self.row, index):
            try:
                examples += self._describe(draw)
            except ExampleError as error:
                unusable.append(Unusable(draw.dataset, str(error), error.reason))
        sizes = [Size(e.n_tokens, e.n_crops, e.n_pooled, e.units) for e in examples]
        return [[examples[i] for i in row] for row in pack(sizes, self._shape, self._shards)], unusable
