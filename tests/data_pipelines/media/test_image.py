"""Loading images: exact, upright, RGB; errors for files that are not images."""

import contextlib
import struct
import zlib

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


@pytest.mark.parametrize("name", ["a.png", "a.eps"])
def test_other_formats_of_pillow_are_refused(street, tmp_path, name):
    Image.fromarray(street).save(tmp_path / name, format="EPS")  # which Pillow gives to Ghostscript
    with pytest.raises(MediaError, match=rf"{name}: not an image, .*formats are JPEG, ") as refused:
        load_image(tmp_path / name)
    assert refused.value.reason == "not_media"


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_heic_is_named(tmp_path, brand):
    (tmp_path / "a.jpg").write_bytes(struct.pack(">I4s4sI4s4s", 24, b"ftyp", brand, 0, b"mif1", b"heic") + bytes(200))
    with pytest.raises(MediaError, match="HEIC is not read: convert it to JPEG, PNG or AVIF"):
        load_image(tmp_path / "a.jpg")


def png(chunk: bytes, data: bytes) -> bytes:
    """A red picture of 64 x 48 with one more chunk before its pixels."""
    rows = (b"\0" + bytes([200, 10, 10]) * 64) * 48
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)),
        (chunk, data),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("chunk", "head"), [(b"zTXt", b"Raw profile\0\0"), (b"iTXt", b"XML\0\1\0\0\0"), (b"iCCP", b"ICC profile\0\0")]
)
def test_megabytes_of_text_in_a_png_are_allowed_and_hundreds_are_an_error(tmp_path, chunk, head):
    (tmp_path / "a.png").write_bytes(png(chunk, head + zlib.compress(b"x" * 3_000_000)))
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), np.full((48, 64, 3), (200, 10, 10)))
    (tmp_path / "b.png").write_bytes(png(chunk, head + zlib.compress(b"x" * 100_000_000)))
    with pytest.raises(MediaError, match=r"b\.png: "):
        load_image(tmp_path / "b.png")


@pytest.mark.parametrize("damage", range(200, 2000, 300))
def test_a_damaged_avif_is_an_error_of_its_file(street, tmp_path, damage):
    Image.fromarray(street).save(tmp_path / "a.avif")
    data = bytearray((tmp_path / "a.avif").read_bytes())
    data[damage : damage + 100] = bytes(100)
    (tmp_path / "a.avif").write_bytes(data)
    with contextlib.suppress(MediaError):  # or it is decoded, with other pixels
        assert load_image(tmp_path / "a.avif").shape == street.shape


def test_deep_images_raise_and_are_not_clipped(tmp_path):
    Image.fromarray(np.full((4, 4), 30_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="more than 8 bits"):
        load_image(tmp_path / "a.png")
