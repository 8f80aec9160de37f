"""The attention mask of a row as a picture: pixel (y, x) shows how many pairs of query block y and key block x are
allowed, and by which rule.

A row of 8 tokens in blocks of 2: a visual pair (v), two branches (A, B), a second example (C):

    token   v v A A B B C C          tile    # all allowed by the subtree rule (causal), \\ its diagonal half
    until   6 6 4 4 6 6 8 8                  X diagonal, the other half by the image group (bidirectional)
    group   1 1 0 0 0 0 0 0

        v A B C      No S x S array is built: a tile's pairs are counted from each key's interval of queries and, for
    v   X . . .      groups, from running counts of their members. A row of 36,864 tokens takes a second or two.
    A   # \\ . .
    B   # . \\ .
    C   . . . \\
"""

import io

import numpy as np
from PIL import Image

CAUSAL = (37, 99, 235)  # red, green, blue
BIDIRECTIONAL = (234, 88, 12)
FAINTEST = 48  # alpha of a tile with a single allowed pair, so that it is visible


def tile_counts(until_S: np.ndarray, group_S: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Allowed pairs in each tile, by the subtree rule and by the image group alone, int64[n, n]; n = ceil(S / block).

    `until_S`, `group_S`: `visible_until` and `image_group` of one row, int32[S]. The rule: ops/attention/mask.py.
    """
    length = len(until_S)
    key = np.arange(length)
    end = np.maximum(until_S, key)  # padding, whose subtree ends before it begins, is visible to no query
    starts = np.arange(0, length, block)
    causal = np.zeros((len(starts), len(starts)), np.int64)
    grouped = np.zeros_like(causal)
    members = [np.flatnonzero(group_S == g) for g in np.unique(group_S[group_S != 0])]
    for tile, first in enumerate(starts):
        last = min(first + block, length)
        queries = np.clip(end, first, last) - np.clip(key, first, last)  # of the tile, by key
        causal[tile] = np.add.reduceat(queries, starts)
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
    """Tile counts (int64[n, n]) of a row of `length` tokens as uint8[n, n, 4], RGBA: colour by rule, alpha by share."""
    allowed = causal + grouped
    sizes = np.minimum(block, length - np.arange(0, length, block))
    share = allowed / (sizes[:, None] * sizes[None, :])
    mix = np.divide(grouped, allowed, out=np.zeros_like(share), where=allowed > 0)[..., None]
    pixels = np.zeros((*allowed.shape, 4), np.uint8)
    pixels[..., :3] = np.where(allowed[..., None] > 0, np.rint((1 - mix) * CAUSAL + mix * BIDIRECTIONAL), 0)
    pixels[..., 3] = np.where(allowed > 0, np.rint(FAINTEST + (255 - FAINTEST) * share), 0)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    """RGBA pixels, uint8[h, w, 4], as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
