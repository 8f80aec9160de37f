"""Images from files: uint8 RGB, upright, or an error that names the file."""

import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from molmo2_jax.data.failure import MediaError
from molmo2_jax.data.source import Source, name_of, rewound

# What Pillow's decoders raise on damaged files; a bomb is an image of more than 179 million pixels.
_DAMAGED = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def load_image(source: Source) -> np.ndarray:
    """An image as uint8[H, W, 3] RGB, turned upright as its EXIF says; of an animation the first picture.

    Raises MediaError, naming the file, where it is missing, no image, cut off or of a kind without RGB values.
    """
    name = name_of(source)
    source = rewound(source)
    try:
        with Image.open(source) as image:
            mode = image.mode
            image.load()
            pixels = np.asarray(_upright(image).convert("RGB"))
    except _DAMAGED as error:
        raise MediaError(f"{name}: not an image, or a damaged one ({error})", _reason(error)) from error
    if mode.startswith(("I", "F")):  # 16 or 32 bits a pixel, which Pillow has clipped to white by now
        raise MediaError(f"{name}: its pixels have more than 8 bits (mode {mode})", "too_deep")
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGED:  # the pixels are whole, only the note how the camera was held is not
        return image


def _reason(error: Exception) -> str:
    """What a failure of Pillow is counted as: it names files that end too early in several ways, all with one word."""
    if isinstance(error, UnidentifiedImageError):
        return "not_media"
    return "cut_off" if "truncated" in str(error).lower() else "undecodable"
