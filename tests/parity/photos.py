"""Photographs: frames of the street clip in various sizes, color modes, formats and orientations."""

import pathlib

import numpy as np
from PIL import Image

from data_pipelines.media.video import decode_frames


def _with_alpha(frame):
    frame.putalpha(Image.linear_gradient("L").resize(frame.size))
    return frame


PHOTOS = {
    "frame.png": lambda frame: frame,
    "wide.jpg": lambda frame: frame.resize((3000, 200)),
    "tall.jpg": lambda frame: frame.crop((200, 0, 300, 272)).resize((200, 3000)),
    "large.jpg": lambda frame: frame.resize((4000, 3000)),
    "square.png": lambda frame: frame.crop((180, 0, 452, 272)).resize((1000, 1000)),
    "small.png": lambda frame: frame.crop((300, 100, 431, 181)),
    "tiny.png": lambda frame: frame.crop((300, 100, 309, 105)),
    "pixel.png": lambda frame: frame.crop((300, 100, 301, 101)),
    "strip.png": lambda frame: frame.crop((0, 100, 640, 160)),
    "thread.png": lambda frame: frame.crop((300, 0, 301, 272)).resize((1, 2000)),
    "grey.png": lambda frame: frame.convert("L"),
    "grey_alpha.png": lambda frame: _with_alpha(frame.convert("L")),
    "rgba.png": lambda frame: _with_alpha(frame.convert("RGB")),
    "palette.png": lambda frame: frame.convert("P"),
    "bits.png": lambda frame: frame.convert("1"),
    "cmyk.jpg": lambda frame: frame.convert("CMYK"),
    "rotated.jpg": lambda frame: frame.crop((0, 0, 500, 200)),
    "mirrored.jpg": lambda frame: frame.crop((0, 0, 500, 200)),
}
ORIENTATION = {"rotated.jpg": 6, "mirrored.jpg": 5}  # EXIF's; both exchange width and height


def save_photos(video: pathlib.Path, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """{name: path} of PHOTOS."""
    frames = decode_frames(video, np.linspace(0, 9, len(PHOTOS)))
    for (name, make), frame in zip(PHOTOS.items(), frames, strict=True):
        exif = Image.Exif()
        exif[0x0112] = ORIENTATION.get(name, 1)
        make(Image.fromarray(frame)).save(folder / name, exif=exif)
    return {name: folder / name for name in PHOTOS}
