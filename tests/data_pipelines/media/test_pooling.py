"""Pooling tables as in the public reference: the counts are its outputs."""

import numpy as np
import pytest

from data_pipelines.media.crops import image_crops
from data_pipelines.media.pooling import frame_pooling, image_pooling
from data_pipelines.media.token_counts import token_grids

PADDING = [-1] * 5  # a token of an image pools 4 patches of at most 9

COUNTS = {  # crop_grid: (grid of tokens, tokens, <im_patch> tokens, crops)
    (1, 1): ((14, 14), 410, 392, 2),
    (1, 2): ((14, 23), 536, 518, 3),
    (2, 1): ((23, 14), 545, 518, 3),
    (2, 2): ((23, 23), 752, 725, 5),
    (1, 4): ((14, 42), 802, 784, 5),
    (4, 1): ((42, 14), 830, 784, 5),
    (2, 3): ((23, 33), 982, 955, 7),
    (3, 2): ((33, 23), 992, 955, 7),
    (2, 4): ((23, 42), 1189, 1162, 9),
    (4, 2): ((42, 23), 1208, 1162, 9),
    (1, 8): ((14, 80), 1334, 1316, 9),
    (8, 1): ((80, 14), 1400, 1316, 9),
    (3, 4): ((33, 42), 1619, None, 13),
    (4, 6): ((42, 61), 2804, None, 25),
    (24, 1): ((232, 14), 3680, 3444, 25),
}


@pytest.mark.parametrize("crop_grid", COUNTS)
def test_counts_of_a_crop_grid(crop_grid):
    grid, tokens, patch_tokens, crops = COUNTS[crop_grid]
    (low_rows, low_columns), (rows, columns) = token_grids(crop_grid)
    assert (rows, columns) == grid
    # overview with start and end; grid with a column token per row, start and end
    assert low_rows * low_columns + 2 + rows * (columns + 1) + 2 == tokens
    pooling = image_pooling(crop_grid)
    assert len(pooling) == low_rows * low_columns + rows * columns
    assert patch_tokens in (None, len(pooling))
    assert pooling.max() == 729 * crops - 1


def test_pooling_rows_of_one_crop():
    pooling = image_pooling((1, 1))
    assert pooling.dtype == np.int32 and pooling.shape == (392, 9)
    assert pooling[0].tolist() == [0, 1, 27, 28, *PADDING]
    assert pooling[13].tolist() == [26, -1, 53, -1, *PADDING]
    assert pooling[195].tolist() == [728, -1, -1, -1, *PADDING]
    assert pooling[196].tolist() == [729, 730, 756, 757, *PADDING]
    np.testing.assert_array_equal(pooling[196:, 0], pooling[:196, 0] + 729)


def test_pooling_rows_across_a_seam():
    """Two adjacent crops: the grid continues from column 22 of the first crop to column 4 of the second."""
    pooling = image_pooling((1, 2))
    crop_1, crop_2 = 729, 2 * 729
    assert pooling[196 + 11].tolist() == [crop_1 + 22, crop_2 + 4, crop_1 + 27 + 22, crop_2 + 27 + 4, *PADDING]
    assert pooling[196 + 22].tolist() == [crop_2 + 25, crop_2 + 26, crop_2 + 27 + 25, crop_2 + 27 + 26, *PADDING]
    assert pooling[196 + 23].tolist() == [crop_1 + 54, crop_1 + 55, crop_1 + 81, crop_1 + 82, *PADDING]


@pytest.mark.parametrize("crop_grid", [(1, 1), (2, 3), (3, 2), (4, 1), (1, 8), (4, 6)])
def test_tokens_pool_adjacent_patches(crop_grid):
    """Each patch of the image contains its position: each token of the grid must pool its 2 x 2 patches, in order."""
    rows, columns = (19 * n + 8 for n in crop_grid)
    positions = np.stack(np.broadcast_arrays(np.arange(rows)[:, None], np.arange(columns), 7), axis=-1).astype(np.uint8)
    image = positions.repeat(14, axis=0).repeat(14, axis=1)  # already of the size of the resized image
    patches = image_crops(image, crop_grid).reshape(-1, 588)
    _, (height, width) = token_grids(crop_grid)
    grid = image_pooling(crop_grid)[196:, :4].reshape(height, width, 4)
    for y in range(height):
        for x in range(width):
            expected = [(2 * y + i, 2 * x + j) for i in (0, 1) for j in (0, 1)]
            for patch, (row, column) in zip(grid[y, x], expected, strict=True):
                if row >= rows or column >= columns:
                    assert patch == -1
                else:
                    assert patches[patch].reshape(196, 3).tolist() == [[row, column, 7]] * 196


def test_frame_pooling():
    pooling = frame_pooling(3)
    assert pooling.shape == (243, 9) and pooling.dtype == np.int32
    assert pooling[0].tolist() == [0, 1, 2, 27, 28, 29, 54, 55, 56]
    assert pooling[8].tolist() == [24, 25, 26, 51, 52, 53, 78, 79, 80]
    assert pooling[9].tolist() == [81, 82, 83, 108, 109, 110, 135, 136, 137]
    assert pooling[81].tolist() == [729, 730, 731, 756, 757, 758, 783, 784, 785]
    assert sorted(pooling.ravel()) == list(range(3 * 729))
    assert frame_pooling(0).shape == (0, 9)
