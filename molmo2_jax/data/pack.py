"""Packing: which examples share a row. Looks at lengths only."""

from collections.abc import Sequence

from molmo2_jax.data.example import Example
from molmo2_jax.data.schema import RowShape


def pack(examples: Sequence[Example], shape: RowShape) -> list[list[Example]]:
    """Rows that hold every example exactly once, within all three budgets: best fit, the largest first.

    Sizes of one budget of 10:  [6, 3, 5, 4, 2]  ->  [[6, 4], [3, 5, 2]]

    Placing the largest first leaves the small ones to fill gaps; the row they go to is the one they fill most. Rows
    come in the order of their first example, examples in the order given, so that a stream is not sorted by size.
    Raises ValueError for an example that is larger than a row.
    """
    budgets = (shape.tokens, shape.crops, shape.pooled)
    sizes = [(e.n_tokens, e.n_crops, e.n_pooled) for e in examples]
    for example, size in zip(examples, sizes, strict=True):
        if any(s > b for s, b in zip(size, budgets, strict=True)):
            raise ValueError(f"{example.where}: (tokens, crops, pooled) = {size} is more than a row, {budgets}")
    # A budget of 0 (text-only rows) takes no part in comparing sizes.
    scale = [1 / b if b else 0.0 for b in budgets]
    largest_first = sorted(range(len(examples)), key=lambda i: -max(_shares(sizes[i], scale)))
    rooms: list[list[int]] = []
    rows: list[list[int]] = []
    for index in largest_first:
        size = sizes[index]
        fits = [r for r, room in enumerate(rooms) if all(s <= left for s, left in zip(size, room, strict=True))]
        if fits:
            best = min(fits, key=lambda r: sum(_shares(rooms[r], scale)))
        else:
            best = len(rooms)
            rooms.append(list(budgets))
            rows.append([])
        rooms[best] = [left - s for s, left in zip(size, rooms[best], strict=True)]
        rows[best].append(index)
    return [[examples[i] for i in row] for row in sorted(sorted(row) for row in rows)]


def _shares(amounts: Sequence[int], scale: Sequence[float]) -> list[float]:
    return [amount * one for amount, one in zip(amounts, scale, strict=True)]
