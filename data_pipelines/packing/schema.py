"""The row: the fixed-length sequence that the model trains on. Names, shapes, dtypes and pads are defined here only.

A row holds several examples end to end. Two examples of 4 and 3 tokens in a row of S = 8, where token 1 of the first is
the only visual token (S marks "unused" in `visual_slots`):

    tokens         a  v  b  c | d  e  f | -
    positions      0  1  2  3 | 0  1  2 | 0      restart per example; a branch continues from its parent's end
    visible_until  4  4  4  4 | 7  7  7 | 0      a key is visible to queries in [its own index, visible_until)
    image_group    0  1  0  0 | 0  0  0 | 0      tokens of one non-zero group attend to each other both ways
    visual_slots   1  8  8 ..                    pooled feature g is added at token visual_slots[g]
"""

import dataclasses
from typing import Annotated

import numpy as np

from data_pipelines.config import at_least
from data_pipelines.media.crops import PATCH_PIXELS, PATCHES
from data_pipelines.media.pooling import POOL


@dataclasses.dataclass(frozen=True)
class RowShape:
    """Budgets of one row."""

    seq_len: Annotated[int, at_least(1)]  # S, tokens
    crops: Annotated[int, at_least(0)]  # C, crops of 378x378 pixels
    pooled: Annotated[int, at_least(0)]  # G, visual tokens: pooled features of patches


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a row: dtype, dims (letters of the shape legend) and the value of unused entries."""

    dtype: type
    dims: str
    pad: int | str  # "S": the row's token budget, an index outside the row


FIELDS = {
    "tokens": Field(np.int32, "S", 0),
    "targets": Field(np.int32, "S", 0),
    "loss_weights": Field(np.float32, "S", 0),
    "positions": Field(np.int32, "S", 0),
    "visible_until": Field(np.int32, "S", 0),
    "image_group": Field(np.int32, "S", 0),
    "crops": Field(np.uint8, "CPX", 0),
    "pooling": Field(np.int32, "GK", -1),
    "visual_slots": Field(np.int32, "G", "S"),
}


def row_dims(shape: RowShape, name: str) -> tuple[int, ...]:
    """Shape of field `name` in one row, without the batch dimension."""
    sizes = {"S": shape.seq_len, "C": shape.crops, "G": shape.pooled, "P": PATCHES, "X": PATCH_PIXELS, "K": POOL}
    return tuple(sizes[d] for d in FIELDS[name].dims)


def empty_row(shape: RowShape) -> dict[str, np.ndarray]:
    """A row of padding: nothing visible, all loss weights 0."""
    pads = {name: shape.seq_len if f.pad == "S" else f.pad for name, f in FIELDS.items()}
    return {name: np.full(row_dims(shape, name), pads[name], f.dtype) for name, f in FIELDS.items()}
