"""Laying out a row: examples end to end, their relative indices made absolute, and a slot for each crop.

Two examples of 4 and 3 tokens, 1 crop each, in a row of S = 8 (S marks "unused" in visual_slots):

    tokens         a  v  b  c | d  w  e | -
    visible_until  4  4  4  4 | 7  7  7 | 0       + the index of the example's first token
    image_group    0  1  0  0 | 0  2  0 | 0       + the groups of earlier examples: no two examples share one
    visual_slots   1  5  8 ...                    + the index of the example's first token
    pooling        0..728 | 729..1457             + 729 * the crop's slot

With vision shards, `pooling` counts crops from the first crop of their own shard (packing/vision_shards.py):

    2 shards of 2 crops, an image i of 2 crops and a frame f     crops i i | f -     pooling of the frame 0..728
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import MediaError
from data_pipelines.media.crops import PATCHES
from data_pipelines.packing.schema import RowShape, empty_row
from data_pipelines.packing.vision_shards import Placement, place
from data_pipelines.sequence.example import Example
from data_pipelines.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, eq=False)
class PlacedExample:
    """An example in a row: the slice of its tokens, and the slot of each of its crops, int64[n_crops]."""

    example: Example
    tokens: slice
    crop_slots: np.ndarray


def lay_out_row(
    row: dict[str, np.ndarray],
    examples: Sequence[Example],
    placements: Sequence[Placement],
    tok: Tokenizer,
    length_weight: float,
) -> list[PlacedExample]:
    """Write all fields of `examples` except `crops` into `row`, the arrays of an empty row, in place.

    Raises:
      ValueError: the examples have more tokens than the row.
    """
    placed, token, groups = [], 0, 0
    for example, (crop_slots, pooled_slots, shard_crops) in zip(examples, placements, strict=True):
        arrays = example.lay_out(tok, length_weight)
        span = slice(token, token + len(arrays.tokens))
        if span.stop > len(row["tokens"]):
            raise ValueError(
                f"{example.where}: examples of {span.stop} tokens do not fit a row of {len(row['tokens'])}"
            )
        for name in ("tokens", "targets", "loss_weights", "positions"):
            row[name][span] = getattr(arrays, name)
        row["visible_until"][span] = arrays.visible_until + token
        row["image_group"][span] = np.where(arrays.image_group == 0, 0, arrays.image_group + groups)
        groups += arrays.image_group.max()
        patches = example.pooling()
        crop = shard_crops[patches // PATCHES] if shard_crops.size else patches
        row["pooling"][pooled_slots] = np.where(patches < 0, -1, PATCHES * crop + patches % PATCHES)
        row["visual_slots"][pooled_slots] = arrays.visual_slots + token
        placed.append(PlacedExample(example, span, crop_slots))
        token = span.stop
    return placed


def mask_out_loss(row: dict[str, np.ndarray], placed: PlacedExample) -> None:
    """Set the loss weights of an example to 0. Its tokens stay, so that no other example moves."""
    row["loss_weights"][placed.tokens] = 0


def build_row(
    examples: Sequence[Example], shape: RowShape, tok: Tokenizer, length_weight: float
) -> tuple[dict[str, np.ndarray], list[MediaError]]:
    """The arrays of one row without vision shards, decoded in this process, and the errors of its media."""
    row = empty_row(shape)
    failures = []
    placements = place([example.units for example in examples], shape, shards=1)
    for placed in lay_out_row(row, examples, placements, tok, length_weight):
        try:
            crops = [crop for plan in placed.example.media for crop in plan.crops()]
            if len(crops) != len(placed.crop_slots):
                raise MediaError(
                    f"{placed.example.where}: {len(crops)} crops decoded, {len(placed.crop_slots)} planned",
                    "undecodable",
                )
            if crops:
                row["crops"][placed.crop_slots] = crops
        except MediaError as error:
            mask_out_loss(row, placed)
            failures.append(error)
    return row, failures
