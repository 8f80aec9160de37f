"""How many visual tokens a video frame has, and an image of a crop grid.

A frame has 9 x 9 = 81. An image has 14 x 14 for its overview and, for its crops, half of the patches that they keep,
rounded up, along each axis. Special tokens around them: sequence/visual_layout.py. This file is exported with a model.
"""

from data_pipelines.media.crops import MARGIN, PATCHES_PER_SIDE, STEP, CropGrid
from data_pipelines.media.pooling import FRAME_POOL, IMAGE_POOL

TOKENS_PER_FRAME = (PATCHES_PER_SIDE // FRAME_POOL) ** 2  # visual tokens of one frame: 81


def token_grids(crop_grid: CropGrid) -> tuple[tuple[int, int], tuple[int, int]]:
    """(rows, columns) of visual tokens of an image's overview and of its crops: (2, 2) -> (14, 14), (23, 23)."""
    return (_tokens_along(1), _tokens_along(1)), (_tokens_along(crop_grid[0]), _tokens_along(crop_grid[1]))


def _tokens_along(crops: int) -> int:
    """Tokens along one axis of `crops` crops: 1 -> 14, 2 -> 23, 4 -> 42."""
    return -(-(STEP * crops + 2 * MARGIN) // IMAGE_POOL)
