"""The media of a prompt: paths, PIL images or arrays, opened and probed."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_pipelines.media.location import InMemory, Location
from data_pipelines.media.medium import FramesMedium, ImageMedium, Media, open_image, open_video

ImageInput = str | pathlib.Path | Image.Image | np.ndarray  # an array is uint8[H, W, 3]
Frames = tuple[Sequence[Image.Image | np.ndarray] | np.ndarray, Sequence[float]]  # frames, and the seconds of each
VideoInput = str | pathlib.Path | Frames


def open_media(
    image: ImageInput | Sequence[ImageInput], video: VideoInput | None, clip: tuple[float, float] | None
) -> Media:
    """The images, or the video, of a prompt.

    Args:
      image: one image, or a list of them.
      clip: start and end in seconds: the part of a video file to look at.

    Raises:
      MediaError, ExampleError: a medium cannot be read, or the clip is not inside its video; names the file.
      ValueError: arguments that do not go together.
    """
    images = list(image) if isinstance(image, list | tuple) else [image]
    if video is not None and images:
        raise ValueError("a prompt is about images or a video, not both")
    if clip is not None and not isinstance(video, str | pathlib.Path):
        raise ValueError("clip is a part of a video file: give its path as `video`")
    if video is None:
        return tuple(_open_image(one, number) for number, one in enumerate(images, start=1))
    if isinstance(video, str | pathlib.Path):
        return (open_video(Location.of(video), clip),)
    frames, times = video
    array = np.stack([_pixels(frame) for frame in frames])
    if len(times) != len(array) or not (np.diff(times) > 0).all():
        raise ValueError(f"{len(array)} frames need as many times, in ascending order; got {list(times)}")
    return (FramesMedium(InMemory("frames", b""), array, tuple(map(float, times))),)


def _open_image(image: ImageInput, number: int) -> ImageMedium:
    if isinstance(image, str | pathlib.Path):
        return open_image(Location.of(image))
    encoded = io.BytesIO()
    Image.fromarray(_pixels(image)).save(encoded, "PNG")  # lossless
    return open_image(InMemory(f"image {number}", encoded.getvalue()))


def _pixels(image: Image.Image | np.ndarray) -> np.ndarray:
    pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f"an image is a path, a PIL image or uint8[H, W, 3], not {pixels.dtype}{list(pixels.shape)}")
    return pixels
