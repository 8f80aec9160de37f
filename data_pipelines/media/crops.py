"""Images and frames as 378 x 378 crops of 27 x 27 patches.

An image is shown twice: squashed into one crop (the overview), and resized to a grid of crops that overlap by 8
patches, of which 4 on either side of a seam are dropped. r x c crops keep a grid of (19r+8) x (19c+8) patches. Along
one axis, for r = 2:

    crop 0   patches 0 .. 22 kept, 23 .. 26 dropped       grid  0 .. 22
    crop 1   patches 0 .. 3 dropped, 4 .. 26 kept         grid 23 .. 45

A video frame is one squashed crop. Which patches a visual token pools: pooling.py.

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
PATCHES = PATCHES_PER_SIDE**2  # patches of one crop: 729 (SigLIP2 So400m/14)
PATCH_PIXELS = 3 * PATCH**2  # 588 values of one patch: (row, column, channel)

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


def _interpolation(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each output pixel along an axis: the input pixels before and after it, and the weight of the latter."""
    scale = np.float32(size / new_size)
    centres = np.maximum((np.arange(new_size, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    before = np.minimum(centres.astype(np.int64), size - 1)
    return before, np.minimum(before + 1, size - 1), centres - before.astype(np.float32)
