"""Building a row: examples end to end, everything relative made absolute, media decoded straight into place.

Two examples of 4 and 3 tokens, 1 crop each, in a row of S = 8 (S marks "unused" in visual_slots):

    tokens         a  v  b  c | d  w  e | -
    visible_until  4  4  4  4 | 7  7  7 | 0       + the example's first token
    image_group    0  1  0  0 | 0  2  0 | 0       + the groups of examples before it: never shared between two
    visual_slots   1  5  8 ...                    + the example's first token
    pooling        0..728 | 729..1457             + 729 * the example's first crop
"""

from collections.abc import Sequence

import numpy as np

from molmo2_jax.data.example import Example
from molmo2_jax.data.failure import MediaError
from molmo2_jax.data.schema import PATCHES, RowShape, empty_row


def build_row(examples: Sequence[Example], shape: RowShape) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of schema.FIELDS for one row, and the failures: "RECORD ID: why its medium could not be decoded"."""
    row = empty_row(shape)
    return row, fill_row(row, examples)


def fill_row(row: dict[str, np.ndarray], examples: Sequence[Example]) -> list[str]:
    """Write examples into `row`, the arrays of an empty row, in place; return the failures.

    An example whose medium cannot be decoded keeps its place, with weights 0 and black crops: it teaches nothing and
    moves nobody else. Raises ValueError when the examples are more than a row.
    """
    sizes = np.array([(e.n_tokens, e.n_crops, e.n_pooled) for e in examples]).reshape(-1, 3)
    budgets = (len(row["tokens"]), len(row["crops"]), len(row["pooling"]))
    if (sizes.sum(axis=0) > budgets).any():
        raise ValueError(f"examples of (tokens, crops, pooled) = {sizes.sum(axis=0)} do not fit a row of {budgets}")
    starts = np.cumsum(sizes, axis=0) - sizes
    groups = 0
    failures = []
    for example, (token, crop, pooled), (n_tokens, n_crops, n_pooled) in zip(examples, starts, sizes, strict=True):
        here = slice(token, token + n_tokens)
        for name in ("tokens", "targets", "loss_weights", "positions"):
            row[name][here] = getattr(example, name)
        row["visible_until"][here] = example.visible_until + token
        row["image_group"][here] = np.where(example.image_group == 0, 0, example.image_group + groups)
        groups += example.image_group.max()
        there = slice(pooled, pooled + n_pooled)
        patches = example.pooling()
        row["pooling"][there] = np.where(patches < 0, patches, patches + PATCHES * crop)
        row["visual_slots"][there] = example.visual_slots + token
        crops = row["crops"][crop : crop + n_crops]
        try:
            _decode(example, crops)
        except MediaError as error:
            crops[:] = 0  # what was decoded before the error must not make the row depend on where it struck
            row["loss_weights"][here] = 0
            failures.append(f"{example.id}: {error}")
    return failures


def _decode(example: Example, crops: np.ndarray) -> None:
    """Fill uint8[n_crops, 729, 588]. Raises MediaError, also when the medium yields another number of crops."""
    count = 0
    for view in example.views():
        if count < len(crops):
            crops[count] = view
        count += 1
    if count != len(crops):
        raise MediaError(f"{example.where}: {count} views decoded where {len(crops)} were planned")
