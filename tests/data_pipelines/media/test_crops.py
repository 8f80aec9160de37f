"""Crops, crop grids and pooling tables as in the public reference, and resizing compared with its definition."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image

from data_pipelines.media.crops import (
    choose_crop_grid,
    frame_crop,
    frame_pooling,
    image_crops,
    image_pooling,
    patchify,
    resize,
    token_grids,
)

PADDING = [-1] * 5  # a token of an image pools 4 patches of at most 9


@pytest.fixture(scope="module")
def street():
    """A real picture, 272 x 640."""
    with av.open("experiments/street/bikes.mp4") as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


# Resizing


def gray(values):
    return np.repeat(np.array(values, np.uint8)[..., None], 3, axis=-1)


def by_definition(image, height, width):
    """Every output pixel separately, in double precision and unrounded: the value at its centre in the input."""
    out = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
            u = min(max((x + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
            top, left = int(v), int(u)
            corners = image[top : top + 2, left : left + 2].astype(float)
            rows = np.array([1 - (v - top), v - top])[: corners.shape[0], None, None]
            columns = np.array([1 - (u - left), u - left])[: corners.shape[1], None]
            out[y, x] = (corners * rows * columns).sum(axis=(0, 1))
    return out


def test_resize_by_hand():
    assert resize(gray([[10, 20, 30, 41]]), 1, 2)[..., 0].tolist() == [[15, 36]]
    assert resize(gray([[0, 100]]), 1, 4)[..., 0].tolist() == [[0, 25, 75, 100]]
    assert resize(gray([[0], [100]]), 4, 1)[..., 0].tolist() == [[0], [25], [75], [100]]
    assert resize(gray([[0, 80], [160, 240]]), 1, 1)[..., 0].tolist() == [[120]]
    assert resize(gray([[0, 80], [160, 240]]), 3, 3)[..., 0].tolist() == [[0, 40, 80], [80, 120, 160], [160, 200, 240]]


def test_resize_rounds_halves_to_even():
    assert resize(gray([[0, 1], [0, 1]]), 2, 1)[..., 0].tolist() == [[0], [0]]
    assert resize(gray([[1, 2], [2, 3]]), 2, 1)[..., 0].tolist() == [[2], [2]]


def test_resize_does_not_antialias():
    """At a third of the size, only the middle pixel of nine counts."""
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize(image, 20, 30), image[1::3, 1::3])


def test_resize_to_a_half_is_the_mean_of_four():
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = np.rint(image.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3)))
    np.testing.assert_array_equal(resize(image, 20, 30), expected)


def test_resize_to_the_same_size_changes_nothing(street):
    np.testing.assert_array_equal(resize(street, 272, 640), street)


@given(
    st_numpy.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))),
    st.integers(1, 40),
    st.integers(1, 12),
)
@settings(max_examples=100, deadline=None)
def test_resize_is_its_definition(image, height, width):
    exact = by_definition(image, height, width)
    result = resize(image, height, width)
    assert result.shape == (height, width, 3) and result.dtype == np.uint8
    assert np.abs(result - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("height, width", [(378, 700), (644, 910)])
def test_upscaling_agrees_with_pillow(street, height, width):
    """Pillow antialiases only when it shrinks. It rounds after each axis, so a few values differ by one."""
    expected = np.asarray(Image.fromarray(street).resize((width, height), Image.Resampling.BILINEAR))
    difference = np.abs(resize(street, height, width).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1


# Crop grids: the counts are outputs of the public reference

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


@pytest.mark.parametrize(
    "width, height, max_crops, crop_grid",
    [
        (640, 480, 8, (2, 2)),
        (1024, 768, 8, (2, 3)),
        (1920, 1080, 8, (2, 4)),
        (1080, 1920, 8, (4, 2)),
        (1000, 1000, 8, (2, 2)),
        (2000, 2000, 8, (2, 2)),
        (10000, 10000, 8, (2, 2)),
        (378, 378, 8, (1, 1)),
        (20, 300, 8, (1, 1)),
        (1, 1, 8, (1, 1)),
        (379, 378, 8, (1, 2)),
        (10000, 112, 8, (1, 8)),
        (112, 10000, 8, (8, 1)),
        (10000, 111, 8, (1, 1)),
        (111, 10000, 8, (1, 1)),
        (1024, 768, 24, (3, 4)),
        (1920, 1080, 24, (4, 6)),
        (112, 10000, 24, (24, 1)),
        (5000, 3000, 1, (1, 1)),
    ],
)
def test_choose_crop_grid(width, height, max_crops, crop_grid):
    assert choose_crop_grid(height, width, max_crops) == crop_grid


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 24))
def test_a_crop_grid_fits_its_budget_and_upscales_only_when_it_can(height, width, max_crops):
    rows, columns = choose_crop_grid(height, width, max_crops)
    assert 1 <= rows * columns <= max_crops
    covered = rows * 266 + 112 >= height and columns * 266 + 112 >= width
    coverable = any(
        r * c <= max_crops and r * 266 + 112 >= height and c * 266 + 112 >= width
        for r in range(1, max_crops + 1)
        for c in range(1, max_crops + 1)
    )
    assert covered == coverable or min(height, width) < 112


def test_no_crop_grid_raises():
    with pytest.raises(ValueError, match="no crop grid for 480 x 640 pixels with at most 0 crops"):
        choose_crop_grid(480, 640, 0)


# Crops and their pooling


def test_patchify_order():
    crops = np.random.default_rng(0).integers(0, 256, (2, 378, 378, 3), dtype=np.uint8)
    patches = patchify(crops)
    assert patches.shape == (2, 729, 588)
    # patch 28 is row 1, column 1; pixel values 3 .. 5 of a patch are its first row's second pixel
    np.testing.assert_array_equal(patches[1, 28].reshape(14, 14, 3), crops[1, 14:28, 14:28])
    np.testing.assert_array_equal(patches[0, 26, 3:6], crops[0, 0, 26 * 14 + 1])


def test_image_crops(street):
    crops = image_crops(street, (1, 2))
    assert crops.shape == (3, 729, 588) and crops.dtype == np.uint8
    large = resize(street, 378, 644)
    np.testing.assert_array_equal(crops[0], frame_crop(street))
    np.testing.assert_array_equal(crops[1], patchify(large[None, :, :378])[0])
    np.testing.assert_array_equal(crops[2], patchify(large[None, :, 266:])[0])


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


def test_frame_crop(street):
    crop = frame_crop(street)
    assert crop.shape == (729, 588) and crop.dtype == np.uint8
    np.testing.assert_array_equal(crop, patchify(resize(street, 378, 378)[None])[0])
