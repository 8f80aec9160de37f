"""Images and frames as 378 x 378 crops of 27 x 27 patches, and which patches each visual token pools.

An image is shown twice: squashed into one crop (the overview), and resized to a grid of crops that overlap by 8
patches, of which 4 on either side of a seam are dropped. r x c crops keep a grid of (19r+8) x (19c+8) patches. Along
one axis, for r = 2:

    crop 0   patches 0 .. 22 kept, 23 .. 26 dropped       grid  0 .. 22
    crop 1   patches 0 .. 3 dropped, 4 .. 26 kept         grid 23 .. 45

Each visual token pools 2 x 2 patches: 14 x 14 tokens for the overview, and half of the grid, rounded up, along each
axis. A video frame is one squashed crop, pooled 3 x 3: 81 tokens.

This file imports numpy only, because it is exported with a model (molmo2_jax/weights/hf/export_code.py).

Sources: arXiv 2601.10611, public reference multicrop_preprocessor.py.
"""

import numpy as np

CropGrid = tuple[int, int]  # rows and columns of high-resolution crops

PATCH = 14  # pixels along a side of a patch
PATCHES_PER_SIDE = 27  # patches along a side of a crop
CROP_SIZE = PATCHES_PER_SIDE * PATCH  # 378 pixels along a side of a crop
MARGIN = 4  # patches dropped on either side of a seam
STEP = PATCHES_PER_SIDE - 2 * MARGIN  # 19 patches from one crop to the next
IMAGE_POOL = 2  # a visual token of an image pools 2 x 2 patches
FRAME_POOL = 3  # a visual token of a video frame pools 3 x 3 patches
TOKENS_PER_FRAME = (PATCHES_PER_SIDE // FRAME_POOL) ** 2  # visual tokens of one frame: 81
PATCHES = PATCHES_PER_SIDE**2  # patches of one crop: 729 (SigLIP2 So400m/14)
PATCH_PIXELS = 3 * PATCH**2  # 588 values of one patch: (row, column, channel)
POOL = FRAME_POOL**2  # patches that a visual token can pool: 9 of a frame; 4 of an image, then -1

_ROWS = 16  # rows resized at a time, so that their floats fit the CPU cache


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of uint8[H, W, 3] to uint8[height, width, 3], from 2 x 2 pixels each (no antialiasing).

    From 4 columns to 2: output centres 0.5 and 1.5 are 1.0 and 3.0 in the input, halfway between its pixels:

        resize([[10, 20, 30, 41]], 1, 2)  ->  [[15, 36]]        35.5 is rounded to even

    Computed in float32, then rounded, like torchvision's Resize(antialias=False), which Molmo2 was trained with.
    """
    top, bottom, down = _interpolation(image.shape[0], height)
    left, right, across = _interpolation(image.shape[1], width)
    # The channels of a pixel are adjacent in memory: interpolate each channel as a column of its own.
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
        # A mean of bytes is in [0, 255] up to float32 rounding errors, which rint removes: no clipping is needed.
        out[block] = np.rint(upper * (1 - down[block]) + lower * down[block])
    return out.reshape(height, width, 3)


def choose_crop_grid(height: int, width: int, max_crops: int) -> CropGrid:
    """Rows and columns of at most `max_crops` crops that need the least upscaling, or else the least downscaling.

    choose_crop_grid(480, 640, 8)  ->  (2, 2)        choose_crop_grid(1080, 1920, 8)  ->  (2, 4)

    A strip narrower than the outer margins (112 pixels) gets one crop, however long it is, as in the released
    processors; the public training code uses up to `max_crops`.
    """
    if min(height, width, max_crops) < 1:
        raise ValueError(f"no crop grid for {height} x {width} pixels with at most {max_crops} crops")
    if min(height, width) < 2 * MARGIN * PATCH:
        return 1, 1
    grids = [(r, c) for r in range(1, max_crops + 1) for c in range(1, max_crops // r + 1)]
    grids.sort(key=lambda grid: (grid[0] * grid[1], grid[0]))
    # No crop is needed for the outer margins. float32 as in the reference, where it decides near-ties.
    inner = np.maximum(np.float32([height, width]) - 2 * MARGIN * PATCH, 1)
    scales = (np.float32(grids) * (STEP * PATCH) / inner).min(axis=1)
    upscaling = np.where(scales < 1, np.inf, scales)
    return grids[int(scales.argmax() if (scales < 1).all() else upscaling.argmin())]


def patchify(crops: np.ndarray) -> np.ndarray:
    """Cut uint8[C, 378, 378, 3] into uint8[C, 729, 588]: patches row by row, pixels as (row, column, RGB)."""
    crops = crops.reshape(-1, PATCHES_PER_SIDE, PATCH, PATCHES_PER_SIDE, PATCH, 3)
    return crops.transpose(0, 1, 3, 2, 4, 5).reshape(-1, PATCHES, PATCH_PIXELS)


def image_crops(image: np.ndarray, crop_grid: CropGrid) -> np.ndarray:
    """The crops of an image (uint8[H, W, 3]) as uint8[1 + r * c, 729, 588]: the overview, then the crops row by row."""
    rows, columns = crop_grid
    step, border = STEP * PATCH, 2 * MARGIN * PATCH
    large = resize(image, rows * step + border, columns * step + border)
    corners = [(i * step, j * step) for i in range(rows) for j in range(columns)]
    crops = [resize(image, CROP_SIZE, CROP_SIZE), *(large[y : y + CROP_SIZE, x : x + CROP_SIZE] for y, x in corners)]
    return patchify(np.stack(crops))


def frame_crop(frame: np.ndarray) -> np.ndarray:
    """A video frame (uint8[H, W, 3]) squashed into one crop: uint8[729, 588]."""
    return patchify(resize(frame, CROP_SIZE, CROP_SIZE)[None])[0]


def token_grids(crop_grid: CropGrid) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows, columns) of visual tokens of an image's overview and of its crops: (2, 2) -> (14, 14), (23, 23)."""
    return (_tokens_along(1), _tokens_along(1)), (_tokens_along(crop_grid[0]), _tokens_along(crop_grid[1]))


def image_pooling(crop_grid: CropGrid) -> np.ndarray:
    """Patches pooled by each visual token of an image, int32[G, 9]: the overview's, then the grid's, both row by row.

    Patch p of crop c has id 729 c + p. A token pools 4 patches, fewer at an odd edge; -1 is padding. For grid (1, 1):

        token 0     0   1   27  28   -1 ...      overview, top left
        token 195   728 -1  -1  -1   -1 ...      overview, bottom right: 27 is odd
        token 196   729 730 756 757  -1 ...      crop 1, top left
    """
    overview = np.arange(PATCHES).reshape(PATCHES_PER_SIDE, PATCHES_PER_SIDE)
    return np.concatenate([_pool_windows(overview, IMAGE_POOL), _pool_windows(_stitch(crop_grid), IMAGE_POOL)])


def frame_pooling(n_frames: int) -> np.ndarray:
    """Patches pooled by each visual token of `n_frames` frames, int32[81 n, 9]; patch ids of frame f start at 729 f.

    token 0   0 1 2  27 28 29  54 55 56          top left of the first frame
    """
    one = _pool_windows(np.arange(PATCHES).reshape(PATCHES_PER_SIDE, PATCHES_PER_SIDE), FRAME_POOL)
    starts = PATCHES * np.arange(n_frames, dtype=np.int32)
    return (starts[:, None, None] + one).reshape(-1, POOL)


def _interpolation(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output pixel along an axis: the input pixels before and after it, and the weight of the latter."""
    scale = np.float32(size / new_size)
    centres = np.maximum((np.arange(new_size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    before = np.minimum(centres.astype(np.int64), size - 1)
    return before, np.minimum(before + 1, size - 1), centres - before.astype(np.float32)


def _tokens_along(crops: int) -> int:
    """Tokens along one axis of `crops` crops: 1 -> 14, 2 -> 23, 4 -> 42."""
    return -(-(STEP * crops + 2 * MARGIN) // IMAGE_POOL)


def _stitch(crop_grid: CropGrid) -> np.ndarray:
    """Ids of the patches that the crops of a grid keep, int64[19r + 8, 19c + 8], in image order."""
    rows, columns = crop_grid
    crop_rows, patch_rows = _kept_patches(rows)
    crop_columns, patch_columns = _kept_patches(columns)
    crop = 1 + crop_rows[:, None] * columns + crop_columns
    return PATCHES * crop + PATCHES_PER_SIDE * patch_rows[:, None] + patch_columns


def _kept_patches(crops: int) -> tuple[np.ndarray, np.ndarray]:
    """For each patch of the stitched grid along one axis: the index of its crop, and its index in that crop."""
    index = np.arange(STEP * crops + 2 * MARGIN)
    crop = np.clip((index - MARGIN) // STEP, 0, crops - 1)
    return crop, index - STEP * crop


def _pool_windows(ids: np.ndarray, side: int) -> np.ndarray:
    """Windows of side x side ids, row by row, as int32[windows, 9]; -1 beyond an edge and after the window's ids."""
    pads = [(-size % side) for size in ids.shape]
    ids = np.pad(ids, [(pad // 2, pad - pad // 2) for pad in pads], constant_values=-1)
    rows, columns = ids.shape[0] // side, ids.shape[1] // side
    windows = ids.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(rows * columns, side * side)
    return np.pad(windows, [(0, 0), (0, POOL - side * side)], constant_values=-1).astype(np.int32)
