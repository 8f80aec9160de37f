"""Views, tilings and pooling tables as in the public reference, and resizing against its definition."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image

from molmo2_jax.data.views import (
    choose_tiling,
    frame_pooling,
    frame_view,
    image_grid,
    image_pooling,
    image_views,
    patchify,
    resize,
)

NONE = [-1] * 5  # a token of an image uses 4 of its 9 places


@pytest.fixture(scope="module")
def street():
    """A real picture, 272 x 640."""
    with av.open("experiments/street/bikes.mp4") as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


# Resizing


def gray(values):
    return np.repeat(np.array(values, np.uint8)[..., None], 3, axis=-1)


def by_definition(image, height, width):
    """Every output pixel by itself, in double precision and unrounded: what lies at its centre in the input."""
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
    """To a third, only the middle pixel of nine is seen; whatever surrounds it is not."""
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
    """Pillow antialiases only where it shrinks. It rounds after each axis, hence a few values are one off."""
    expected = np.asarray(Image.fromarray(street).resize((width, height), Image.Resampling.BILINEAR))
    difference = np.abs(resize(street, height, width).astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.1


# Tilings: the counts that running the public reference gives

COUNTS = {  # tiling: (grid of tokens, tokens, <im_patch> tokens, views)
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


@pytest.mark.parametrize("tiling", COUNTS)
def test_counts_of_a_tiling(tiling):
    grid, tokens, patch_tokens, views = COUNTS[tiling]
    (low_rows, low_columns), (rows, columns) = image_grid(tiling)
    assert (rows, columns) == grid
    # overview with start and end; grid with a column token a row, start and end
    assert low_rows * low_columns + 2 + rows * (columns + 1) + 2 == tokens
    pooling = image_pooling(tiling)
    assert len(pooling) == low_rows * low_columns + rows * columns
    assert patch_tokens in (None, len(pooling))
    assert pooling.max() == 729 * views - 1


@pytest.mark.parametrize(
    "width, height, max_crops, tiling",
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
def test_choose_tiling(width, height, max_crops, tiling):
    assert choose_tiling(height, width, max_crops) == tiling


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 24))
def test_a_tiling_fits_its_budget_and_upscales_only_when_it_can(height, width, max_crops):
    rows, columns = choose_tiling(height, width, max_crops)
    assert 1 <= rows * columns <= max_crops
    covered = rows * 266 + 112 >= height and columns * 266 + 112 >= width
    coverable = any(
        r * c <= max_crops and r * 266 + 112 >= height and c * 266 + 112 >= width
        for r in range(1, max_crops + 1)
        for c in range(1, max_crops + 1)
    )
    assert covered == coverable or min(height, width) < 112


def test_no_tiling_raises():
    with pytest.raises(ValueError, match="no tiling of 480 x 640 pixels with at most 0 crops"):
        choose_tiling(480, 640, 0)


# Views and what is pooled from them


def test_patchify_order():
    views = np.random.default_rng(0).integers(0, 256, (2, 378, 378, 3), dtype=np.uint8)
    patches = patchify(views)
    assert patches.shape == (2, 729, 588)
    # patch 28 is row 1, column 1; pixel values 3 .. 5 of a patch are its first row's second pixel
    np.testing.assert_array_equal(patches[1, 28].reshape(14, 14, 3), views[1, 14:28, 14:28])
    np.testing.assert_array_equal(patches[0, 26, 3:6], views[0, 0, 26 * 14 + 1])


def test_image_views(street):
    views = image_views(street, (1, 2))
    assert views.shape == (3, 729, 588) and views.dtype == np.uint8
    large = resize(street, 378, 644)
    np.testing.assert_array_equal(views[0], frame_view(street))
    np.testing.assert_array_equal(views[1], patchify(large[None, :, :378])[0])
    np.testing.assert_array_equal(views[2], patchify(large[None, :, 266:])[0])


def test_pooling_rows_of_one_view():
    pooling = image_pooling((1, 1))
    assert pooling.dtype == np.int32 and pooling.shape == (392, 9)
    assert pooling[0].tolist() == [0, 1, 27, 28, *NONE]
    assert pooling[13].tolist() == [26, -1, 53, -1, *NONE]
    assert pooling[195].tolist() == [728, -1, -1, -1, *NONE]
    assert pooling[196].tolist() == [729, 730, 756, 757, *NONE]
    np.testing.assert_array_equal(pooling[196:, 0], pooling[:196, 0] + 729)


def test_pooling_rows_across_a_seam():
    """Two views side by side: the grid goes from column 22 of the first view to column 4 of the second."""
    pooling = image_pooling((1, 2))
    view_1, view_2 = 729, 2 * 729
    assert pooling[196 + 11].tolist() == [view_1 + 22, view_2 + 4, view_1 + 27 + 22, view_2 + 27 + 4, *NONE]
    assert pooling[196 + 22].tolist() == [view_2 + 25, view_2 + 26, view_2 + 27 + 25, view_2 + 27 + 26, *NONE]
    assert pooling[196 + 23].tolist() == [view_1 + 54, view_1 + 55, view_1 + 81, view_1 + 82, *NONE]


@pytest.mark.parametrize("tiling", [(1, 1), (2, 3), (3, 2), (4, 1), (1, 8), (4, 6)])
def test_tokens_pool_the_patches_that_lie_together(tiling):
    """An image whose patches know their place: each token of the grid must find its own 2 x 2 of them, in order."""
    rows, columns = (19 * n + 8 for n in tiling)
    place = np.stack(np.broadcast_arrays(np.arange(rows)[:, None], np.arange(columns), 7), axis=-1).astype(np.uint8)
    image = place.repeat(14, axis=0).repeat(14, axis=1)  # already of the size it is resized to
    patches = image_views(image, tiling).reshape(-1, 588)
    _, (height, width) = image_grid(tiling)
    grid = image_pooling(tiling)[196:, :4].reshape(height, width, 4)
    for y in range(height):
        for x in range(width):
            wanted = [(2 * y + i, 2 * x + j) for i in (0, 1) for j in (0, 1)]
            for patch, (row, column) in zip(grid[y, x], wanted, strict=True):
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


def test_frame_view(street):
    view = frame_view(street)
    assert view.shape == (729, 588) and view.dtype == np.uint8
    np.testing.assert_array_equal(view, patchify(resize(street, 378, 378)[None])[0])
