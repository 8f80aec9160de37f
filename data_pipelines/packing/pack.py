"""Packing: which examples share a row. Looks at lengths only.

Each row starts with the largest remaining example. Of all sets of others that fit next to it, the row takes the set
that fills the scarce budget most, and of those the one that fills the others most. In rows of 10 crops and 100 tokens:

    (crops, tokens)   (6, 20)  (5, 50)  (4, 10)  (4, 70)  (1, 40)
    row 1             (6, 20) + (4, 70)            10 crops, 90 tokens; with (4, 10), later rows would run out of tokens
    row 2             (5, 50) + (4, 10) + (1, 40)  10 crops, 100 tokens

The search keeps all reachable sums as the bits of one integer, crops above tokens: bit `crops * line + tokens`. Adding
an example shifts the integer, and the highest bit is the fullest row. Examples are added in order of size, largest
first, and only until the row is full: small ones are worth more later, for filling the last gaps.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.packing.schema import RowShape
from data_pipelines.packing.vision_shards import assign

CANDIDATES = 64  # examples that the search for the best set considers
SEARCHED = 12  # about as many examples of a row are chosen by the search; those before them in order of size
SCARCE_STEPS = 2048  # the scarce budget is rounded to at most this number of steps
STEPS = 2**16  # product of the steps of all budgets, which bounds the integer to 16 KB
FULL = 0.999  # a row is full with this share of the scarce budget, and with its average share of the others


class Size(NamedTuple):
    """What an example takes of a row. `units`: (crops, pooled) of each image or frame, which stays in one shard."""

    tokens: int
    crops: int
    pooled: int
    units: tuple[tuple[int, int], ...]


def pack(sizes: Sequence[Size], shape: RowShape, shards: int = 1) -> list[list[int]]:
    """Rows of indices: each example exactly once, within all budgets and the vision shards of a row.

    Rows are in the order of their first example, and examples in the order given, so that a stream is not sorted by
    size.

    Raises:
      ValueError: an example is larger than a row; the message gives its index.
    """
    budgets_B = np.array([shape.seq_len, shape.crops, shape.pooled])
    sizes_NB = np.array([size[:3] for size in sizes], np.int64).reshape(-1, 3)
    for index, size in enumerate(sizes):
        if (sizes_NB[index] > budgets_B).any() or not _fits_shards([size], shape, shards):
            raise ValueError(
                f"example {index}: {size.tokens} tokens, {size.crops} crops, {size.pooled} visual tokens are more than "
                f"a row, {shape}{f' in {shards} vision shards' if shards > 1 else ''}"
            )
    # A budget of 0 (text-only rows) does not count in comparing sizes.
    shares = sizes_NB / np.maximum(budgets_B, 1)
    left = np.argsort(-shares.max(axis=1), kind="stable")
    rows = []
    while left.size:
        row = _fill_row(sizes_NB[left], budgets_B)
        if shards > 1:
            row = list(_fitting_shards([sizes[i] for i in left[row]], row, shape, shards))
        rows.append(sorted(left[row].tolist()))
        left = np.delete(left, row)
    return sorted(rows)


def _fill_row(sizes_NB: np.ndarray, budgets_B: np.ndarray) -> list[int]:
    """Indices into `sizes_NB` (largest first) of the examples of a row that starts with the first."""
    demand_B = sizes_NB.sum(axis=0) / np.maximum(budgets_B, 1)  # rows needed if each budget were the only one
    row = [0]
    room_B = budgets_B - sizes_NB[0]
    fitting = 1 + np.flatnonzero((sizes_NB[1:] <= room_B).all(axis=1))
    while fitting.size:
        wanted_B = sizes_NB[fitting].mean(axis=0)
        scarce = int(np.argmax(np.where(wanted_B > 0, demand_B, -1)))
        unsearched_B = np.where(np.arange(3) == scarce, room_B - SEARCHED * wanted_B, room_B)
        first = int((sizes_NB[fitting].cumsum(axis=0) <= unsearched_B).all(axis=1).sum())
        if not first:
            break
        row += fitting[:first].tolist()
        room_B = room_B - sizes_NB[fitting[:first]].sum(axis=0)
        fitting = fitting[first:]
        fitting = fitting[(sizes_NB[fitting] <= room_B).all(axis=1)]
    if not fitting.size:
        return row
    if fitting.size > CANDIDATES:  # half of them the largest, half of all sizes
        half = CANDIDATES // 2
        spread = np.linspace(half, fitting.size - 1, half).astype(int)
        fitting = fitting[np.concatenate([np.arange(half), spread])]
    average_B = budgets_B * demand_B / demand_B[scarce] - (budgets_B - room_B)
    enough_B = np.where(np.arange(3) == scarce, FULL * room_B, average_B.clip(0, room_B))
    return row + [int(fitting[i]) for i in _fullest_set(sizes_NB[fitting], room_B, enough_B, scarce)]


def _fullest_set(sizes_NB: np.ndarray, room_B: np.ndarray, enough_B: np.ndarray, scarce: int) -> list[int]:
    """Indices of the set that fills `room_B` most, the scarce budget first, or of the first set with `enough_B`.

    Sizes are rounded up to whole steps, and the other budgets are merged into one, of which each example takes its
    largest share: a set that is found always fits, but one that fits to the last token may be missed.
    """
    step = -(-room_B[scarce] // SCARCE_STEPS)
    height = int(room_B[scarce] // step)
    others = [b for b, room in enumerate(room_B) if b != scarce and sizes_NB[:, b].any()]
    width = min(STEPS // (height + 1), max((int(room_B[b]) for b in others), default=0))
    up_N = -(-sizes_NB[:, scarce] // step)
    along_NO = np.stack([np.zeros(len(sizes_NB), int), *(-(-sizes_NB[:, b] * width // room_B[b]) for b in others)], -1)
    # A line of the integer has twice the width, so that sums that are too wide set bits that the mask clears.
    line = 2 * width + 1
    lines = ((1 << line * (height + 1)) - 1) // ((1 << line) - 1)
    mask = lines * ((1 << (width + 1)) - 1)
    enough_along = max((enough_B[b] * width // room_B[b] for b in others), default=0)
    enough = int(np.ceil(enough_B[scarce] / step)) * line + int(enough_along)
    shifts = (up_N * line + along_NO.max(axis=1)).tolist()
    reached = [1]
    for shift in shifts:
        reached.append((reached[-1] | reached[-1] << shift) & mask)
        if reached[-1] >> enough:
            break
    bit = reached[-1].bit_length() - 1
    chosen = []
    for i in reversed(range(len(reached) - 1)):  # prefers sets without the last examples, which are small
        if not reached[i] >> bit & 1:
            chosen.append(i)
            bit -= shifts[i]
    return chosen[::-1]


def _fitting_shards(sizes: Sequence[Size], indices: Sequence[int], shape: RowShape, shards: int) -> Iterator[int]:
    """The indices of a row's examples that fit its vision shards: all, or each that fits next to those before it."""
    kept: list[Size] = []
    for size, index in zip(sizes, indices, strict=True):
        if _fits_shards([*kept, size], shape, shards):
            kept.append(size)
            yield index


def _fits_shards(sizes: Sequence[Size], shape: RowShape, shards: int) -> bool:
    units = [unit for size in sizes for unit in size.units]
    return assign(units, shape, shards) is not None
