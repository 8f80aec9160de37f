"""Answers with their points and tracks as values, in pixels and seconds, and as a picture."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from data_pipelines.media.image import load_image
from data_pipelines.media.medium import FramesMedium, ImageMedium, Media, VideoMedium
from data_pipelines.media.video import decode_frames
from data_pipelines.text.points import parse_points

MAX_FRAMES, COLUMNS = 12, 4  # of a picture; of more moments, MAX_FRAMES spread evenly are drawn
_COLORS = ("#ff3b30", "#34c759", "#0a84ff", "#ffd60a", "#bf5af2", "#ff9f0a", "#64d2ff", "#ff6482")


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of an answer. x and y are pixels of the upright image or frame, y down.

    `time`: seconds since the clip's start, for videos; `image`: number of the image, from 1, for images. `object`: the
    number that the answer gives the point, the same in all frames of a track.
    """

    time: float | None
    x: float
    y: float
    object: int
    label: str
    image: int | None


@dataclasses.dataclass(frozen=True)
class Track:
    """The points of one object in order of time."""

    label: str
    object: int
    points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Answer:
    """A generated answer about `media`."""

    prompt: str
    text: str
    media: Media

    @property
    def points(self) -> tuple[Point, ...]:
        """The points of all `<points …>` tags; of images those that name a shown one."""
        return tuple(point for kind, point in self._read() if kind == "points")

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The objects of all `<tracks …>` tags."""
        objects: dict[tuple[str, int], list[Point]] = {}
        for kind, point in self._read():
            if kind == "tracks":
                objects.setdefault((point.label, point.object), []).append(point)
        ordered = {key: tuple(sorted(points, key=lambda p: p.time)) for key, points in objects.items()}
        return tuple(Track(label, number, points) for (label, number), points in ordered.items())

    def draw(self, path: str | pathlib.Path | None = None) -> Image.Image:
        """The images, or the frames that are pointed at, with points and tracks on them; saved to `path` if given.

        Raises:
          ValueError: the prompt had no image or video.
          MediaError: a medium cannot be decoded.
        """
        if not self.media:
            raise ValueError("the prompt had no image or video: there is nothing to draw on")
        points = [point for _, point in self._read()]
        if isinstance(self.media[0], ImageMedium):
            shown = [
                (load_image(medium.location.source()), [p for p in points if p.image == number], "")
                for number, medium in enumerate(self.media, start=1)
            ]
        else:
            times = _spread(sorted({point.time for point in points}) or [0.0])
            frames = zip(_frames(self.media[0], times), times, strict=True)
            shown = [(frame, [p for p in points if p.time == time], f"{time:.1f} s") for frame, time in frames]
        picture = _grid([_draw(*one) for one in shown])
        if path is not None:
            picture.save(path)
        return picture

    def _read(self) -> Iterator[tuple[str, Point]]:
        """(kind of its tag, point) of every point that names a shown image, or a time of a shown video."""
        is_video = bool(self.media) and not isinstance(self.media[0], ImageMedium)
        for tag in parse_points(self.text):
            for p in tag.points:
                time, image = (float(p.key), None) if is_video else (None, int(p.key))
                if is_video or 1 <= image <= len(self.media):
                    width, height = self.media[0 if is_video else image - 1].size
                    yield tag.kind, Point(time, p.x * width, p.y * height, p.index, tag.label, image)


def _spread(times: Sequence[float]) -> Sequence[float]:
    few = np.linspace(0, len(times) - 1, min(len(times), MAX_FRAMES)).round().astype(int)
    return [times[i] for i in few]


def _frames(medium: VideoMedium | FramesMedium, times: Sequence[float]) -> list[np.ndarray]:
    """The frames at `times`, seconds since the clip's start; of given frames the nearest ones."""
    if isinstance(medium, FramesMedium):
        return [medium.frames[np.abs(np.array(medium.times) - time).argmin()] for time in times]
    return list(decode_frames(medium.location.source(), [min(medium.start + time, medium.end) for time in times]))


def _draw(pixels: np.ndarray, points: Sequence[Point], caption: str) -> Image.Image:
    picture = Image.fromarray(pixels)
    canvas, radius = ImageDraw.Draw(picture), max(4, round(0.012 * max(picture.size)))
    style = {"stroke_width": 2, "stroke_fill": "black", "font_size": max(12, 2 * radius)}
    for point in points:
        color = _COLORS[point.object % len(_COLORS)]
        box = (point.x - radius, point.y - radius, point.x + radius, point.y + radius)
        canvas.ellipse(box, outline="black", width=radius)
        canvas.ellipse(box, outline=color, width=max(1, radius // 2))
        canvas.text((point.x + 1.5 * radius, point.y - radius), f"{point.object} {point.label}", fill=color, **style)
    canvas.text((8, 6), caption, fill="white", **style)
    return picture


def _grid(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures row by row, COLUMNS in a row, each in a cell of the largest size."""
    columns = min(COLUMNS, len(pictures))
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    whole = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height), "black")
    for number, picture in enumerate(pictures):
        whole.paste(picture, (number % columns * width, number // columns * height))
    return whole
