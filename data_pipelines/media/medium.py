"""Videos and images of an example, before decoding: their location, size and the part of a video that is shown."""

import dataclasses

import numpy as np

from data_pipelines.errors import ExampleError
from data_pipelines.media import image as image_lib
from data_pipelines.media import video as video_lib
from data_pipelines.media.location import InMemory, Location


@dataclasses.dataclass(frozen=True)
class VideoMedium:
    """A video and the part that an example shows, from `start` to `end` (seconds of the video).

    `width`, `height`: pixels of an upright frame. `frame_rates`: rates (1/s, ascending) that fit the grid on which
    objects were annotated; frames are sampled at one of them. None if frames may be sampled at any time.
    """

    location: Location | InMemory
    width: int
    height: int
    duration: float
    start: float
    end: float
    frame_rates: tuple[float, ...] | None

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


@dataclasses.dataclass(frozen=True)
class ImageMedium:
    """An image; `size` is (width, height) in pixels, upright."""

    location: Location | InMemory
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class FramesMedium:
    """A video given as decoded frames, uint8[T, H, W, 3]; all are shown. `times`: seconds of each frame, ascending."""

    location: InMemory
    frames: np.ndarray
    times: tuple[float, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.shape[2], self.frames.shape[1]


Media = tuple[VideoMedium | ImageMedium | FramesMedium, ...]  # one video, several images, or none


def open_video(location: Location | InMemory, clip: tuple[float, float] | None) -> VideoMedium:
    """Probe a video; `clip` is the part to show in seconds (start, end), None for all of it.

    Raises:
      MediaError: the video cannot be read.
      ExampleError: the clip is empty or not inside the video.
    """
    info = video_lib.probe(location.source())
    return video_medium(location, (info.width, info.height), info.duration, clip, None)


def video_medium(
    location: Location | InMemory,
    size: tuple[int, int],
    duration: float,
    clip: tuple[float, float] | None,
    frame_rates: tuple[float, ...] | None,
) -> VideoMedium:
    """A video whose size and duration are known. Raises ExampleError if `clip` is empty or not inside the video."""
    start, end = (0.0, duration) if clip is None else clip
    if not 0 <= start < end <= duration:
        message = f"{location}: clip [{start}, {end}] is empty or not inside the video, which lasts {duration:g} s"
        raise ExampleError(message, "bad_time")
    return VideoMedium(location, *size, duration, start, end, frame_rates)


def open_image(location: Location | InMemory) -> ImageMedium:
    """Open an image. It is decoded once, the only way to know that it is complete. Raises MediaError."""
    height, width, _ = image_lib.load_image(location.source()).shape
    return ImageMedium(location, (width, height))
