"""Media by name: where a video or an image lies, and what is known of it before a pixel is decoded.

    Location("gs://bucket/clips", "street/a.mp4")                      a file below a folder, local or remote
    Location("prepared/video", "media-00000-of-00002.array_record#17") entry 17 of an archive
    Location.of("/home/ann/a.mp4")                                     a file that somebody named: anywhere

A record names its media, and records are data: a name never leads out of the root it stands below.
"""

import dataclasses
import os
import re
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import fsspec

from molmo2_jax.data import archive
from molmo2_jax.data import image as image_lib
from molmo2_jax.data import video as video_lib
from molmo2_jax.data.failure import ExampleError, MediaError
from molmo2_jax.data.source import NamedBytes

_ENTRY = re.compile(r"(.+\.array_record)#(\d+)")


@dataclasses.dataclass(frozen=True)
class Location:
    """A medium `name` below `root`, a folder or URL. `root` None: `name` is a path or URL that a person gave, unfenced.

    Raises MediaError for a name that is empty, absolute or climbs out ("..").
    """

    root: str | None
    name: str

    @classmethod
    def of(cls, path: str | os.PathLike) -> "Location":
        """The file that somebody named, wherever it lies."""
        return cls(None, os.fspath(path))

    def __post_init__(self):
        parts = PurePosixPath(self.name).parts
        climbs = self.root is not None and (".." in parts or PurePosixPath(self.name).is_absolute())
        if not parts or "\0" in self.name or climbs:
            raise MediaError(f"{self.name!r}: {self._fence()}", "bad_record")

    def __str__(self) -> str:
        return self.name if self.root is None else os.path.join(self.root, self.name)

    @property
    def file(self) -> str:
        """The name without its folders: "street/a.mp4" -> "a.mp4"."""
        return PurePosixPath(self.name).name

    def source(self) -> str | BinaryIO:
        """What the decoders read: the path of a local file, else the medium's bytes as a file in memory.

        Raises MediaError where there is no such file or entry, or where a symbolic link leads out of the root.
        """
        entry = _ENTRY.fullmatch(str(self))
        path = entry[1] if entry else str(self)
        if _is_remote(path):
            return NamedBytes(archive.read_entry(path, int(entry[2])) if entry else self._fetch(), str(self))
        # Links are followed first: what is opened in the end must lie below the root, not only be written so.
        if self.root is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root)):
            raise MediaError(f"{self}: {self._fence()}", "bad_record")
        if not os.path.isfile(path):
            raise MediaError(f"{self}: no such file", "no_file")
        return NamedBytes(archive.read_entry(path, int(entry[2])), str(self)) if entry else path

    def _fetch(self) -> bytes:
        try:
            with fsspec.open(str(self), "rb") as remote:
                return remote.read()
        except FileNotFoundError as error:
            raise MediaError(f"{self}: no such file", "no_file") from error
        except OSError as error:
            raise MediaError(f"{self}: cannot be read ({error})", "unreadable") from error

    def _fence(self) -> str:
        return "media have a relative name" + ("" if self.root is None else f" and stay inside {self.root}")


@dataclasses.dataclass(frozen=True)
class VideoMedium:
    """A video and the part of it, `start` to `end` (seconds of the video), that an example shows.

    `width`, `height`: pixels of an upright frame. `frame_rates`: rates (1/s, ascending) that fit the grid on which
    objects were annotated, one of which frames are sampled at; None where frames may be taken from anywhere.
    """

    location: Location
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
    """An image; `size` is width and height in pixels, upright."""

    location: Location
    size: tuple[int, int]


def open_video(location: Location, clip: tuple[float, float] | None) -> VideoMedium:
    """A video, probed, whole or in part. Raises MediaError (unreadable) or ExampleError (clip outside the video)."""
    info = video_lib.probe(location.source())
    return video_medium(location, (info.width, info.height), info.duration, clip, None)


def video_medium(
    location: Location,
    size: tuple[int, int],
    duration: float,
    clip: tuple[float, float] | None,
    frame_rates: tuple[float, ...] | None,
) -> VideoMedium:
    """A video of which all is known. Raises ExampleError where `clip` is empty or not inside it."""
    start, end = (0.0, duration) if clip is None else clip
    if not 0 <= start < end <= duration:
        message = f"{location}: clip [{start}, {end}] is empty or not inside the video, which lasts {duration:g} s"
        raise ExampleError(message, "bad_time")
    return VideoMedium(location, *size, duration, start, end, frame_rates)


def open_image(location: Location) -> ImageMedium:
    """An image; it is decoded once, which is the only way to know that it is whole. Raises MediaError."""
    height, width, _ = image_lib.load_image(location.source()).shape
    return ImageMedium(location, (width, height))


def _is_remote(path: str) -> bool:
    return "://" in path
