"""Which patches each visual token pools: windows of 2 x 2 patches of an image, and of 3 x 3 of a video frame.

The crops: crops.py. How many tokens that makes: token_counts.py. All three import nothing else but numpy, because they
are exported with a model (molmo2_jax/weights/hf/export_code.py).

Sources: arXiv 2601.10611, public reference multicrop_preprocessor.py.
"""

import numpy as np

from data_pipelines.media.crops import MARGIN, PATCHES, PATCHES_PER_SIDE, STEP, CropGrid

IMAGE_POOL = 2  # a visual token of an image pools 2 x 2 patches
FRAME_POOL = 3  # a visual token of a video frame pools 3 x 3 patches
POOL = FRAME_POOL**2  # patches that a visual token can pool: 9 of a frame; 4 of an image, then -1


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
