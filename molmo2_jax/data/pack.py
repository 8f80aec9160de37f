"""Packing: which examples share a row. Looks at lengths only.

A row is filled around the largest example that is left. Of all sets of others that fit beside it, the one is taken that
fills the scarce budget most, and of those the one that fills the others most. With a row of 10 crops and 100 tokens:

    (crops, tokens)   (6, 20)  (5, 50)  (4, 10)  (4, 70)  (1, 40)
    row 1             (6, 20) + (4, 70)            10 crops, 90 tokens: with (4, 10) tokens would run out later
    row 2             (5, 50) + (4, 10) + (1, 40)  10 crops, 100 tokens

All sums that can be reached are the bits of one integer, crops above tokens: bit `crops * line + tokens`. Adding an
example shifts it, and its highest bit is the fullest row. Examples are added from the largest on and only until the row
is full: small ones are worth more later, when the last gaps are to be filled.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from molmo2_jax.data.schema import RowShape
from molmo2_jax.data.vision_shards import assign

CANDIDATES = 64  # examples of which the best set is sought for a row
LAST = 12  # about so many examples are left to that search; a row of many small ones is begun without it
SCARCE_STEPS = 2048  # the scarce budget is counted in so many steps at most
STEPS = 2**16  # and all others in what this leaves, which bounds the integer to 16 KB
FULL = 0.999  # a row is full with so much of the scarce budget, and of the others what a row has on average


class Size(NamedTuple):
    """What an example takes of a row, and `units`: (crops, pooled) of each image or frame, which stays in one shard."""

    tokens: int
    crops: int
    pooled: int
    units: tuple[tuple[int, int], ...]


def pack(sizes: Sequence[Size], shape: RowShape) -> list[list[int]]:
    """Rows of indices that hold every example exactly once, within all budgets and vision shards.

    Rows come in the order of their first example, examples in the order given, so that a stream is not sorted by size.
    Raises ValueError for an example that is larger than a row; the message gives its index.
    """
    budgets_B = np.array([shape.tokens, shape.crops, shape.pooled])
    sizes_NB = np.array([size[:3] for size in sizes], np.int64).reshape(-1, 3)
    for index, size in enumerate(sizes):
        if (sizes_NB[index] > budgets_B).any() or not _shards_hold([size], shape):
            raise ValueError(f"example {index}: {_text(size)} is more than a row, {_text(shape)}")
    # A budget of 0 (text-only rows) takes no part in comparing sizes.
    shares = sizes_NB / np.maximum(budgets_B, 1)
    left = np.argsort(-shares.max(axis=1), kind="stable")
    rows = []
    while left.size:
        row = _fill(sizes_NB[left], budgets_B)
        if shape.shards > 1:
            row = list(_held_by_shards([sizes[i] for i in left[row]], row, shape))
        rows.append(sorted(left[row].tolist()))
        left = np.delete(left, row)
    return sorted(rows)


def _fill(sizes_NB: np.ndarray, budgets_B: np.ndarray) -> list[int]:
    """A row around the first of `sizes_NB`, the largest: its examples, as places in that order."""
    demand_B = sizes_NB.sum(axis=0) / np.maximum(budgets_B, 1)  # rows that would do if a budget were the only one
    row = [0]
    room_B = budgets_B - sizes_NB[0]
    fitting = 1 + np.flatnonzero((sizes_NB[1:] <= room_B).all(axis=1))
    while fitting.size:
        wanted_B = sizes_NB[fitting].mean(axis=0)
        scarce = int(np.argmax(np.where(wanted_B > 0, demand_B, -1)))
        begin_B = np.where(np.arange(3) == scarce, room_B - LAST * wanted_B, room_B)
        first = int((sizes_NB[fitting].cumsum(axis=0) <= begin_B).all(axis=1).sum())
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
    return row + [int(fitting[i]) for i in _fullest(sizes_NB[fitting], room_B, enough_B, scarce)]


def _fullest(sizes_NB: np.ndarray, room_B: np.ndarray, enough_B: np.ndarray, scarce: int) -> list[int]:
    """The set of examples that fills `room_B` most, first of all the scarce budget, or the first that has `enough_B`.

    Sizes are rounded up to whole steps, and of the other budgets each example takes the one of which it needs most: a
    set found always fits, one that fits to the last token may be missed.
    """
    step = -(-room_B[scarce] // SCARCE_STEPS)
    height = int(room_B[scarce] // step)
    others = [b for b, room in enumerate(room_B) if b != scarce and sizes_NB[:, b].any()]
    width = min(STEPS // (height + 1), max((int(room_B[b]) for b in others), default=0))
    up_N = -(-sizes_NB[:, scarce] // step)
    along_NO = np.stack([np.zeros(len(sizes_NB), int), *(-(-sizes_NB[:, b] * width // room_B[b]) for b in others)], -1)
    # A line of the integer has twice the width, so that what is too wide lands in bits that the mask clears.
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
    at = reached[-1].bit_length() - 1
    chosen = []
    for i in reversed(range(len(reached) - 1)):  # without the last ones, the small ones, where that is possible
        if not reached[i] >> at & 1:
            chosen.append(i)
            at -= shifts[i]
    return chosen[::-1]


def _held_by_shards(sizes: Sequence[Size], places: Sequence[int], shape: RowShape) -> Iterator[int]:
    """Those of a row's examples that its vision shards hold together: all, or each that fits beside the ones before."""
    kept: list[Size] = []
    for size, place in zip(sizes, places, strict=True):
        if _shards_hold([*kept, size], shape):
            kept.append(size)
            yield place


def _shards_hold(sizes: Sequence[Size], shape: RowShape) -> bool:
    units = [unit for size in sizes for unit in size.units]
    return assign(units, shape.shards, shape.crops, shape.pooled) is not None


def _text(of: Size | RowShape) -> str:
    return f"{of.tokens} tokens, {of.crops} crops, {of.pooled} visual tokens" + (
        f" in {of.shards} shards" if isinstance(of, RowShape) and of.shards > 1 else ""
    )
