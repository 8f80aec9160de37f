"""Crops and crop grids as in the public reference, and resizing compared with its definition."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from PIL import Image

from data_pipelines.media.crops import choose_crop_grid, frame_crop, image_crops, patchify, resize


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


# Crop grids


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


# Crops


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


def test_frame_crop(street):
    crop = frame_crop(street)
    assert crop.shape == (729, 588) and crop.dtype == np.uint8
    np.testing.assert_array_equal(crop, patchify(resize(street, 378, 378)[None])[0])
