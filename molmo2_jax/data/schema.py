"""The row: the one fixed-length sequence the data side hands to the model. Names, shapes, dtypes and pads live here.

A row holds several examples end to end. Written for two examples of 4 and 3 tokens in a row of S = 8, where token 1
of the first one is its only visual token (S marks "unused" in `visual_slots`):

    tokens         a  v  b  c | d  e  f | -
    positions      0  1  2  3 | 0  1  2 | 0      restart per example, and per branch at its parent's end
    visible_until  4  4  4  4 | 7  7  7 | 0      a key is seen by queries in [its own index, visible_until)
    image_group    0  1  0  0 | 0  0  0 | 0      equal non-zero groups see each other in both directions
    visual_slots   1  8  8 ..                    pooled feature g is added at token visual_slots[g]
"""

import dataclasses

import numpy as np

from molmo2_jax.data.views import PATCH_PIXELS, PATCHES, POOL


@dataclasses.dataclass(frozen=True)
class RowShape:
    """Budgets of one row: `tokens` S, `crops` C (378x378 views), `pooled` G (visual tokens).

    C and G are cut into `shards` equal vision shards, one a device along the context axis (data/vision_shards.py).
    """

    tokens: int
    crops: int
    pooled: int
    shards: int


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a row: dtype, dims (letters of the shape legend) and the value of unused places."""

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
    sizes = {"S": shape.tokens, "C": shape.crops, "G": shape.pooled, "P": PATCHES, "X": PATCH_PIXELS, "K": POOL}
    return tuple(sizes[d] for d in FIELDS[name].dims)


def empty_row(shape: RowShape) -> dict[str, np.ndarray]:
    """A row of padding only: nothing visible, nothing learned."""
    pads = {name: shape.tokens if f.pad == "S" else f.pad for name, f in FIELDS.items()}
    return {name: np.full(row_dims(shape, name), pads[name], f.dtype) for name, f in FIELDS.items()}
