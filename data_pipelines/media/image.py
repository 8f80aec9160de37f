"""Images decoded from files: uint8 RGB, upright. Errors name the file."""

import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_pipelines.errors import MediaError
from data_pipelines.media.file_source import Source, check_source, source_name

# Errors that Pillow's decoders raise for damaged files. A bomb is an image of more than 179 million pixels.
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def load_image(source: Source) -> np.ndarray:
    """An image as uint8[H, W, 3] RGB, rotated upright by its EXIF orientation; the first picture of an animation.

    Raises MediaError, naming the file, if it is missing, not an image, cut off, or has more than 8 bits per channel.
    """
    name = source_name(source)
    source = check_source(source)
    try:
        with Image.open(source) as image:
            mode = image.mode
            image.load()
            pixels = np.asarray(_upright(image).convert("RGB"))
    except _DAMAGED as error:
        raise MediaError(f"{name}: not an image, or a damaged one ({error})", _failure_reason(error)) from error
    if mode.startswith(("I", "F")):  # 16 or 32 bits per pixel, which convert() has clipped to white
        raise MediaError(f"{name}: its pixels have more than 8 bits (mode {mode})", "bit_depth")
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGED:  # the pixels are complete, only the EXIF data is damaged
        return image


def _failure_reason(error: Exception) -> str:
    """The reason (errors.REASONS) of a Pillow error. Its messages for incomplete files all contain "truncated"."""
    if isinstance(error, UnidentifiedImageError):
        return "not_media"
    return "cut_off" if "truncated" in str(error).lower() else "undecodable"
