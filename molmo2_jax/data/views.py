"""Images and frames as 378 x 378 views of 27 x 27 patches, and which patches each visual token pools.

An image is seen twice: squashed into one view (the overview), and resized to a grid of views that overlap by 8 patches,
of which 4 on either side of a seam are dropped. What is kept of a tiling of r x c views is a grid of (19r+8) x (19c+8)
patches; along one axis, for r = 2:

    view 0   patches 0 .. 22 kept, 23 .. 26 dropped       grid  0 .. 22
    view 1   patches 0 .. 3 dropped, 4 .. 26 kept         grid 23 .. 45

Pooling 2 x 2 patches a token gives 14 x 14 tokens for the overview and ceil(half) of the grid each way. A video frame
is one squashed view, pooled 3 x 3: 81 tokens.

Nothing but numpy is needed here: an exported model takes this file along (hf/serve.py).

Sources: arXiv 2601.10611, public reference multicrop_preprocessor.py.
"""

import numpy as np

Tiling = tuple[int, int]  # rows and columns of high-resolution views

PATCH = 14  # pixels a side
SIDE = 27  # patches a side of a view
VIEW = SIDE * PATCH  # 378 pixels
MARGIN = 4  # patches dropped on either side of a seam
STEP = SIDE - 2 * MARGIN  # 19 patches from one view to the next
IMAGE_POOL = 2  # patches a side of what a visual token of an image pools
FRAME_POOL = 3  # and of a video frame
FRAME_SLOTS = (SIDE // FRAME_POOL) ** 2  # visual tokens of one frame: 81
PATCHES = SIDE**2  # of one view: 729 (SigLIP2 So400m/14)
PATCH_PIXELS = 3 * PATCH**2  # 588 numbers of one patch: (row, column, channel)
POOL = FRAME_POOL**2  # patches a visual token can pool: 9 of a frame; of an image 4, the rest is -1

_ROWS = 16  # rows resized at a time: their floats stay in the processor's cache


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of uint8[H, W, 3] to uint8[height, width, 3], each result from 2 x 2 pixels (no antialiasing).

    A row of 4 to 2: output centres 0.5 and 1.5 are 1.0 and 3.0 of the input, halfway between its pixels:

        resize([[10, 20, 30, 41]], 1, 2)  ->  [[15, 36]]        35.5 goes to the even number

    As torchvision's Resize(antialias=False), with which SigLIP2's input was made for Molmo2: float32, then rounded.
    """
    top, bottom, down = _taps(image.shape[0], height)
    left, right, across = _taps(image.shape[1], width)
    # A pixel's colours lie beside each other: interpolate columns as if each colour were one.
    left, right = ((3 * columns[:, None] + np.arange(3)).ravel() for columns in (left, right))
    across, down = np.repeat(across, 3), down[:, None]
    pixels = image.reshape(image.shape[0], -1)
    out = np.empty((height, 3 * width), np.uint8)
    for start in range(0, height, _ROWS):
        block = slice(start, start + _ROWS)
        upper, lower = (
            rows.take(left, axis=1) * (1 - across) + rows.take(right, axis=1) * across
            for rows in (pixels[top[block]], pixels[bottom[block]])
        )
        # A mean of bytes stays within a byte, but for float32's last digit, which rounding takes away: no clipping.
        out[block] = np.rint(upper * (1 - down[block]) + lower * down[block])
    return out.reshape(height, width, 3)


def choose_tiling(height: int, width: int, max_crops: int) -> Tiling:
    """Rows and columns of views, at most `max_crops`, that need the least upscaling; else the least downscaling.

    choose_tiling(480, 640, 8)  ->  (2, 2)        choose_tiling(1080, 1920, 8)  ->  (2, 4)

    A strip narrower than the outer margins (112 pixels) is one view, however long, as in the released processors; the
    public training code gives it up to `max_crops`.
    """
    if min(height, width, max_crops) < 1:
        raise ValueError(f"no tiling of {height} x {width} pixels with at most {max_crops} crops")
    if min(height, width) < 2 * MARGIN * PATCH:
        return 1, 1
    tilings = [(r, c) for r in range(1, max_crops + 1) for c in range(1, max_crops // r + 1)]
    tilings.sort(key=lambda tiling: (tiling[0] * tiling[1], tiling[0]))
    # The outer margins are the image's for free. float32 as in the reference, where it decides near-ties.
    inner = np.maximum(np.float32([height, width]) - 2 * MARGIN * PATCH, 1)
    scales = (np.float32(tilings) * (STEP * PATCH) / inner).min(axis=1)
    upscaling = np.where(scales < 1, np.inf, scales)
    return tilings[int(scales.argmax() if (scales < 1).all() else upscaling.argmin())]


def patchify(views: np.ndarray) -> np.ndarray:
    """Cut uint8[C, 378, 378, 3] into uint8[C, 729, 588]: patches row by row, each as its pixels (row, column, RGB)."""
    views = views.reshape(-1, SIDE, PATCH, SIDE, PATCH, 3)
    return views.transpose(0, 1, 3, 2, 4, 5).reshape(-1, PATCHES, PATCH_PIXELS)


def image_views(image: np.ndarray, tiling: Tiling) -> np.ndarray:
    """The views of an image (uint8[H, W, 3]) as uint8[1 + r * c, 729, 588]: the overview, then the views row by row."""
    rows, columns = tiling
    step, border = STEP * PATCH, 2 * MARGIN * PATCH
    large = resize(image, rows * step + border, columns * step + border)
    corners = [(i * step, j * step) for i in range(rows) for j in range(columns)]
    views = [resize(image, VIEW, VIEW), *(large[y : y + VIEW, x : x + VIEW] for y, x in corners)]
    return patchify(np.stack(views))


def frame_view(frame: np.ndarray) -> np.ndarray:
    """A video frame (uint8[H, W, 3]), squashed into one view: uint8[729, 588]."""
    return patchify(resize(frame, VIEW, VIEW)[None])[0]


def image_grid(tiling: Tiling) -> tuple[tuple[int, int], tuple[int, int]]:
    """Visual tokens of an image as (rows, columns), of its overview and of its views: (2, 2) -> (14, 14), (23, 23)."""
    return (_pooled(1), _pooled(1)), (_pooled(tiling[0]), _pooled(tiling[1]))


def image_pooling(tiling: Tiling) -> np.ndarray:
    """Patches pooled by each visual token of an image, int32[g, 9]: the overview's, then the grid's, both row by row.

    Patch p of view v is 729 v + p. A token has 4, fewer at an odd edge; -1 is none. For one view (1, 1):

        token 0     0   1   27  28   -1 ...      overview, top left
        token 195   728 -1  -1  -1   -1 ...      overview, bottom right: 27 is odd
        token 196   729 730 756 757  -1 ...      view 1, top left
    """
    overview = np.arange(PATCHES).reshape(SIDE, SIDE)
    return np.concatenate([_pool(overview, IMAGE_POOL), _pool(_stitched(tiling), IMAGE_POOL)])


def frame_pooling(n_frames: int) -> np.ndarray:
    """Patches pooled by each visual token of `n_frames` frames, int32[81 n, 9]; frame f has patches 729 f on.

    token 0   0 1 2  27 28 29  54 55 56          top left of the first frame
    """
    one = _pool(np.arange(PATCHES).reshape(SIDE, SIDE), FRAME_POOL)
    starts = PATCHES * np.arange(n_frames, dtype=np.int32)
    return (starts[:, None, None] + one).reshape(-1, POOL)


def _taps(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output pixel of an axis: the input pixel before it, the one after it and the weight of the latter."""
    scale = np.float32(size / new_size)
    centres = np.maximum((np.arange(new_size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    before = np.minimum(centres.astype(np.int64), size - 1)
    return before, np.minimum(before + 1, size - 1), centres - before.astype(np.float32)


def _pooled(views: int) -> int:
    """Tokens along one axis of `views` views: 1 -> 14, 2 -> 23, 4 -> 42."""
    return -(-(STEP * views + 2 * MARGIN) // IMAGE_POOL)


def _stitched(tiling: Tiling) -> np.ndarray:
    """Ids of the patches kept of a tiling, int64[19r + 8, 19c + 8], as they lie side by side in the image."""
    rows, columns = tiling
    view_rows, patch_rows = _kept(rows)
    view_columns, patch_columns = _kept(columns)
    view = 1 + view_rows[:, None] * columns + view_columns
    return PATCHES * view + SIDE * patch_rows[:, None] + patch_columns


def _kept(views: int) -> tuple[np.ndarray, np.ndarray]:
    """For each place of the stitched grid along one axis: its view, and its patch in that view."""
    place = np.arange(STEP * views + 2 * MARGIN)
    view = np.clip((place - MARGIN) // STEP, 0, views - 1)
    return view, place - STEP * view


def _pool(ids: np.ndarray, side: int) -> np.ndarray:
    """Windows of side x side ids, row by row, as int32[windows, 9]; -1 past an edge and past the window's ids."""
    pads = [(-size % side) for size in ids.shape]
    ids = np.pad(ids, [(pad // 2, pad - pad // 2) for pad in pads], constant_values=-1)
    rows, columns = ids.shape[0] // side, ids.shape[1] // side
    windows = ids.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(rows * columns, side * side)
    return np.pad(windows, [(0, 0), (0, POOL - side * side)], constant_values=-1).astype(np.int32)
