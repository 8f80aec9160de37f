"""Loading images: exact, upright, RGB; errors for files that are not images."""

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import MediaError
from data_pipelines.media.image import load_image


@pytest.fixture(scope="module")
def street():
    """A real picture, 272 x 640."""
    with av.open("experiments/street/bikes.mp4") as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def test_load_png_is_exact(street, tmp_path):
    Image.fromarray(street).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, street)


def test_load_turns_photos_upright(street, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to display
    Image.fromarray(street).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), np.rot90(street, -1))


@pytest.mark.parametrize("mode, pixel", [("L", (90, 90, 90)), ("P", (90, 90, 90)), ("RGBA", (90, 90, 90))])
def test_load_makes_rgb(tmp_path, mode, pixel):
    Image.new("L", (5, 4), 90).convert(mode).save(tmp_path / "a.png")
    image = load_image(str(tmp_path / "a.png"))
    assert image.shape == (4, 5, 3)
    assert (image == pixel).all()


def test_missing_image():
    with pytest.raises(MediaError, match=r"^nowhere/a\.png: no such file"):
        load_image("nowhere/a.png")


def test_text_is_not_an_image(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(MediaError, match=r"a\.png: not an image"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_cut_image(street, tmp_path, kind, part):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(street).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    problem = "not an image, or a damaged one" if part else "the file is empty"
    with pytest.raises(MediaError, match=rf"a\.{kind}: {problem}"):
        load_image(path)


def test_deep_images_raise_and_are_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 30_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="more than 8 bits"):
        load_image(tmp_path / "a.png")
