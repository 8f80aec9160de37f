"""Vision shards: which device along `context` encodes an image or frame, and which slots of the row its crops get.

Under context parallelism the crops C and visual tokens G of a row are divided into equal shards, one per device. A
device pools only crops that it encoded itself, so an image with all its crops, or one video frame, stays in one shard.
Three images of 9, 2 and 3 crops and a video of 4 frames, in a row of 18 crops and 2 shards:

    units         i9  i2  i3  f  f  f  f          crops, visual tokens: (9, 1162), (2, 392), (3, 518), (1, 81) x 4
    shards        0   1   1   1  1  1  1          9 of 9 crops in each
    crop slots    0-8 9   11  14 15 16 17         the units of a shard are contiguous
    shard crops   0-8 0   2   5  6  7  8          the same counted within the shard, as in `pooling`
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.packing.schema import RowShape

Unit = tuple[int, int]  # (crops, visual tokens) of an image or a frame: what one device encodes


class Placement(NamedTuple):
    """Slots of an example's crops and visual tokens: indices into C, into G, and into the crops of their own shard."""

    crop_slots: np.ndarray  # int64[n_crops]
    pooled_slots: np.ndarray  # int64[n_pooled]
    shard_crops: np.ndarray  # int64[n_crops]


def place(examples: Sequence[Sequence[Unit]], shape: RowShape, shards: int) -> list[Placement]:
    """The placement of each example, given as its units, in one row.

    Raises:
      ValueError: the units do not fit the row.
    """
    if not examples:
        return []
    units = [unit for example in examples for unit in example]
    assigned = assign(units, shape, shards)
    if assigned is None:
        crops, pooled = np.array(units).sum(axis=0)
        raise ValueError(f"examples of {crops} crops and {pooled} visual tokens do not fit a row of {shape}")
    ends = np.cumsum([len(example) for example in examples])[:-1]
    crop_slots, pooled_slots = (
        _slots_by_example(units, assigned, column, budget // shards, ends)
        for column, budget in enumerate((shape.crops, shape.pooled))
    )
    shard_size = max(shape.crops // shards, 1)
    return [
        Placement(crops, pooled, crops % shard_size) for crops, pooled in zip(crop_slots, pooled_slots, strict=True)
    ]


def assign(units: Sequence[Unit], shape: RowShape, shards: int) -> list[int] | None:
    """The shard of each unit; None where no assignment was found.

    Units are assigned largest first, each to the first shard with room, so that the frames of a video stay together and
    in order.

    Raises:
      ValueError: `shards` does not divide the budgets of `shape`.
    """
    if shards == 1:
        fits = sum(c for c, _ in units) <= shape.crops and sum(p for _, p in units) <= shape.pooled
        return [0] * len(units) if fits else None
    if shape.crops % shards or shape.pooled % shards:
        raise ValueError(
            f"{shape.crops} crops and {shape.pooled} visual tokens cannot be divided into {shards} equal shards"
        )
    room = [[shape.crops // shards, shape.pooled // shards] for _ in range(shards)]
    # Ties are broken too: packed units are laid out in another order, in which they must still fit.
    sizes = [(max(c * shape.pooled, p * shape.crops), c, p) for c, p in units]
    largest_first = sorted(range(len(units)), key=sizes.__getitem__, reverse=True)
    assigned = [0] * len(units)
    for unit in largest_first:
        c, p = units[unit]
        for shard, left in enumerate(room):
            if c <= left[0] and p <= left[1]:
                assigned[unit] = shard
                left[0] -= c
                left[1] -= p
                break
        else:
            return None
    return assigned


def _slots_by_example(
    units: Sequence[Unit], assigned: Sequence[int], column: int, shard_size: int, ends: np.ndarray
) -> list[np.ndarray]:
    """The slots of each example's crops (column 0) or visual tokens (column 1)."""
    counts_U = np.array([unit[column] for unit in units], np.int64)
    starts_U = _first_slots(counts_U, np.array(assigned, np.int64), shard_size)
    return [
        np.concatenate([_range(start, count) for start, count in zip(*pair, strict=True)] or [_range(0, 0)])
        for pair in zip(np.split(starts_U, ends), np.split(counts_U, ends), strict=True)
    ]


def _first_slots(counts_U: np.ndarray, shard_U: np.ndarray, shard_size: int) -> np.ndarray:
    """First slot of each unit: the units of a shard are contiguous. [2, 1, 3], [0, 1, 0], 8  ->  [0, 8, 2]."""
    starts_U = shard_U * shard_size
    for shard in np.unique(shard_U):
        mine = shard_U == shard
        starts_U[mine] += np.cumsum(counts_U[mine]) - counts_U[mine]
    return starts_U


def _range(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count)
