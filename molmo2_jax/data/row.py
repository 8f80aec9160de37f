"""Laying out a row: examples end to end, everything relative made absolute, and where each crop is to be decoded to.

Two examples of 4 and 3 tokens, 1 crop each, in a row of S = 8 (S marks "unused" in visual_slots):

    tokens         a  v  b  c | d  w  e | -
    visible_until  4  4  4  4 | 7  7  7 | 0       + the example's first token
    image_group    0  1  0  0 | 0  2  0 | 0       + the groups of examples before it: never shared between two
    visual_slots   1  5  8 ...                    + the example's first token
    pooling        0..728 | 729..1457             + 729 * the crop's place

With vision shards, crops and pooled tokens are cut into equal parts, one for each device along `context`; an image or a
frame lies in one of them, and `pooling` counts crops from the first of its own shard:

    2 shards of 2 crops, an image of 2 crops and a frame     crops i i | f -     pooling of the frame 0..728
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from molmo2_jax.data.example import Example
from molmo2_jax.data.failure import MediaError
from molmo2_jax.data.schema import PATCHES, RowShape, empty_row
from molmo2_jax.data.vision_shards import assign
from molmo2_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """An example in a row: its tokens, and the place of each of its crops, int64[n_crops]."""

    example: Example
    tokens: slice
    slots: np.ndarray


def lay_out_row(
    row: dict[str, np.ndarray], examples: Sequence[Example], tok: Tokenizer, shape: RowShape, length_weight: float
) -> list[Placed]:
    """Write examples into `row`, the arrays of an empty row, in place, all but the crops.

    Raises ValueError when the examples are more than a row.
    """
    slots, pooled_slots = _places(examples, shape)
    placed, token, groups = [], 0, 0
    for example, crops, pooled in zip(examples, slots, pooled_slots, strict=True):
        arrays = example.lay_out(tok, length_weight)
        here = slice(token, token + len(arrays.tokens))
        if here.stop > shape.tokens:
            raise ValueError(f"{example.where}: examples of {here.stop} tokens do not fit a row of {shape.tokens}")
        for name in ("tokens", "targets", "loss_weights", "positions"):
            row[name][here] = getattr(arrays, name)
        row["visible_until"][here] = arrays.visible_until + token
        row["image_group"][here] = np.where(arrays.image_group == 0, 0, arrays.image_group + groups)
        groups += arrays.image_group.max()
        patches = example.pooling()
        crop = (crops % (shape.crops // shape.shards))[patches // PATCHES] if crops.size else patches
        row["pooling"][pooled] = np.where(patches < 0, -1, PATCHES * crop + patches % PATCHES)
        row["visual_slots"][pooled] = arrays.visual_slots + token
        placed.append(Placed(example, here, crops))
        token = here.stop
    return placed


def silence(row: dict[str, np.ndarray], placed: Placed) -> None:
    """An example whose medium cannot be decoded keeps its place: it teaches nothing and moves nobody else."""
    row["loss_weights"][placed.tokens] = 0


def build_row(
    examples: Sequence[Example], shape: RowShape, tok: Tokenizer, length_weight: float
) -> tuple[dict[str, np.ndarray], list[MediaError]]:
    """The arrays of schema.FIELDS for one row, decoded here and now, and what was wrong with media."""
    row = empty_row(shape)
    failures = []
    for placed in lay_out_row(row, examples, tok, shape, length_weight):
        try:
            views = [view for plan in placed.example.media for view in plan.views()]
            if len(views) != len(placed.slots):
                raise MediaError(
                    f"{placed.example.where}: {len(views)} views decoded where {len(placed.slots)} were planned",
                    "undecodable",
                )
            if views:
                row["crops"][placed.slots] = views
        except MediaError as error:
            silence(row, placed)
            failures.append(error)
    return row, failures


def _places(examples: Sequence[Example], shape: RowShape) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each example the places of its crops and of its pooled tokens in the row."""
    if not examples:
        return [], []
    units = [unit for example in examples for unit in example.units]
    shards = assign(units, shape.shards, shape.crops, shape.pooled)
    if shards is None:
        crops, pooled = np.array(units).sum(axis=0)
        raise ValueError(f"examples of {crops} crops and {pooled} visual tokens do not fit a row of {shape}")
    ends = np.cumsum([len(example.units) for example in examples])[:-1]
    out = []
    for column, budget in enumerate((shape.crops, shape.pooled)):
        counts_U = np.array([unit[column] for unit in units], np.int64)
        starts_U = _starts(counts_U, np.array(shards, np.int64), budget // shape.shards)
        places = [
            np.concatenate([_ramp(s, n) for s, n in zip(*pair, strict=True)] or [_ramp(0, 0)])
            for pair in zip(np.split(starts_U, ends), np.split(counts_U, ends), strict=True)
        ]
        out.append(places)
    return out[0], out[1]


def _starts(counts_U: np.ndarray, shard_U: np.ndarray, shard_size: int) -> np.ndarray:
    """First place of each unit: units of a shard lie one after the other. [2, 1, 3], [0, 1, 0], 8  ->  [0, 8, 2]."""
    starts_U = shard_U * shard_size
    for shard in np.unique(shard_U):
        mine = shard_U == shard
        starts_U[mine] += np.cumsum(counts_U[mine]) - counts_U[mine]
    return starts_U


def _ramp(start: int, count: int) -> np.ndarray:
    return np.arange(start, start + count)
