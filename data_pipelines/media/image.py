"""Images decoded from files: uint8 RGB, upright. Errors name the file."""

import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from data_pipelines.errors import MediaError
from data_pipelines.media.file_source import Source, open_source, source_name

# The formats that are read. Pillow has more: it would run Ghostscript for EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF", "JPEG2000", "PPM")

# Editors and renderers store megabytes of text and colour profiles in a PNG. Pillow refuses more than one.
PngImagePlugin.MAX_TEXT_CHUNK = 64 << 20  # bytes

# Errors that Pillow's decoders raise for damaged files: AVIF a RuntimeError. A bomb is an image of more than 179
# million pixels.
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, RuntimeError)
_DAMAGED += (struct.error, zlib.error, Image.DecompressionBombError)

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # of an ISO file's first box


def load_image(source: Source) -> np.ndarray:
    """An image as uint8[H, W, 3] RGB, rotated upright by its EXIF orientation; the first picture of an animation.

    Raises MediaError, naming the file, if it is missing, not of one of FORMATS, cut off, or has more than 8 bits per
    channel.
    """
    name = source_name(source)
    with open_source(source) as file:
        try:
            with Image.open(file, formats=FORMATS) as image:
                mode = image.mode
                image.load()
                pixels = np.asarray(_upright(image).convert("RGB"))
        except _DAMAGED as error:
            message = f"{name}: not an image, or a damaged one ({_problem(error, file)})"
            raise MediaError(message, _failure_reason(error)) from error
    if mode.startswith(("I", "F")):  # 16 or 32 bits per pixel, which convert() has clipped to white
        raise MediaError(f"{name}: its pixels have more than 8 bits (mode {mode})", "bit_depth")
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGED:  # the pixels are complete, only the EXIF data is damaged
        return image


def _problem(error: Exception, file: BinaryIO) -> str:
    """What is wrong with a file, for the message of its error."""
    if not isinstance(error, UnidentifiedImageError):
        return str(error)
    file.seek(4)
    box, brand = file.read(4), file.read(4)
    if box == b"ftyp" and brand in _HEIC_BRANDS:
        return "HEIC is not read: convert it to JPEG, PNG or AVIF"
    return f"formats are {', '.join(FORMATS)}"


def _failure_reason(error: Exception) -> str:
    """The reason (errors.REASONS) of a Pillow error. Its messages for incomplete files all contain "truncated"."""
    if isinstance(error, UnidentifiedImageError):
        return "not_media"
    return "cut_off" if "truncated" in str(error).lower() else "undecodable"
