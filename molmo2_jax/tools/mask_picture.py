"""The mask of a row as a picture: pixel (y, x) is how much of query block y sees key block x, and by which rule.

A row of 8 tokens in blocks of 2: a visual pair (v), two branches (A, B), a second example (C):

    token   v v A A B B C C          tile    # all allowed by the subtree rule (causal), \\ its diagonal half
    until   6 6 4 4 6 6 8 8                  X diagonal, the other half by the image group (bidirectional)
    group   1 1 0 0 0 0 0 0

        v A B C      S x S is never built: tiles are counted from each key's interval of queries and, for groups,
    v   X . . .      from running counts of each group, so that a row of 36,864 tokens takes a second or two.
    A   # \\ . .
    B   # . \\ .
    C   . . . \\
"""

import io

import numpy as np
from PIL import Image

CAUSAL = (37, 99, 235)  # red, green, blue
BIDIRECTIONAL = (234, 88, 12)
FAINTEST = 48  # alpha of a tile with a single allowed pair: few, but not none


def tile_counts(until_S: np.ndarray, group_S: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Allowed pairs of each tile: by the subtree rule, and by the image group alone. int64[n, n], n = ceil(S / block).

    `until_S`, `group_S`: `visible_until` and `image_group` of one row. The rule is that of ops/mask.py.
    """
    length = len(until_S)
    key = np.arange(length)
    end = np.maximum(until_S, key)  # a key whose subtree ends before it begins (padding) is seen by none
    starts = np.arange(0, length, block)
    causal = np.zeros((len(starts), len(starts)), np.int64)
    grouped = np.zeros_like(causal)
    members = [np.flatnonzero(group_S == g) for g in np.unique(group_S[group_S != 0])]
    for tile, first in enumerate(starts):
        last = min(first + block, length)
        seen = np.clip(end, first, last) - np.clip(key, first, last)
        causal[tile] = np.add.reduceat(seen, starts)
    for keys in members:
        before = np.zeros(length + 1, np.int64)  # before[i]: members among tokens 0 .. i-1
        before[keys + 1] = 1
        before = before.cumsum()
        for tile in np.unique(keys // block):
            first, last = tile * block, min((tile + 1) * block, length)
            by_subtree = before[np.clip(end[keys], first, last)] - before[np.clip(keys, first, last)]
            extra = before[last] - before[first] - by_subtree
            grouped[tile] += np.bincount(keys // block, weights=extra, minlength=len(starts)).astype(np.int64)
    return causal, grouped


def mask_pixels(causal: np.ndarray, grouped: np.ndarray, length: int, block: int) -> np.ndarray:
    """Tile counts of a row of `length` tokens as uint8[n, n, 4]: colour by rule, alpha by the share of the tile."""
    total = causal + grouped
    sizes = np.minimum(block, length - np.arange(0, length, block))
    share = total / (sizes[:, None] * sizes[None, :])
    mix = np.divide(grouped, total, out=np.zeros_like(share), where=total > 0)[..., None]
    pixels = np.zeros((*total.shape, 4), np.uint8)
    pixels[..., :3] = np.where(total[..., None] > 0, np.rint((1 - mix) * CAUSAL + mix * BIDIRECTIONAL), 0)
    pixels[..., 3] = np.where(total > 0, np.rint(FAINTEST + (255 - FAINTEST) * share), 0)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    """uint8[h, w, 4] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
