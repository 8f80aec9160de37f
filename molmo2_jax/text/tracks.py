"""Tracks as text: where objects are over time, in Molmo2's formats.

    frames               0.0 s  b (.469, .556)  a (.156, .139)
                         0.5 s  a (.172, .139)
                         1.0 s  b (.500, .556)  a (.188, .139)  c (.002, .003)

    all           <tracks coords="0.0 1 156 139 2 469 556;0.5 1 172 139;1.0 1 188 139 2 500 556 3 002 003">dogs</tracks>
    start, end    <tracks coords="0.0 1 156 139 2 469 556;1.0 1 188 139 2 500 556 3 002 003">dogs</tracks>
    b from 0.0 s  <tracks coords="1.0 1 500 556">dogs</tracks>

An object is numbered at its first appearance, there in order of (x, y), and keeps its number: b is missing at 0.5 s and
is 2 again at 1.0 s. The point that a query asks about is text/points.py's work, the tag itself text/point_tag.py's.
Source: public reference olmo/preprocessing/point_formatter.py.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from molmo2_jax.text.point_tag import PointTag, tenths, thousandths, write_tag

NO_TRACKS = "No tracks available."


@dataclasses.dataclass(frozen=True)
class TrackFrame:
    """The objects visible at `time` seconds: object id -> (x, y), fractions of the frame's width and height."""

    time: float
    points: Mapping[str, tuple[float, float]]


def write_tracks(label: str, frames: Iterable[TrackFrame], *, version: str, alt: str | None = None) -> str:
    """The answer that follows every object of `frames`, in order of time; objects of a frame in order of their numbers.

        write_tracks("dog", [TrackFrame(0.5, {"7": (0.1, 0.2)}), TrackFrame(0.0, {"7": (0, 0)})], version="html-v2")
        ->  <tracks coords="0.0 1 000 000;0.5 1 100 200">dog</tracks>

    Frames without a visible object are left out. Where none is left: "No tracks available."; so, too, where all frames
    are empty, for which the public reference has an empty answer, on which nothing can be learned. `version` is one of
    SEPARATORS (point_tag.py). Seconds are rounded to tenths and frames of one tenth are one frame. x and y outside
    [0, 1] go to the nearest edge, each by itself. Raises ValueError for an unknown version, an object at two places in
    one tenth, a time or coordinate that is none, and a label or alt that the format cannot hold.
    """
    written: dict[float, dict[str, tuple[int, int]]] = {}
    for frame in frames:
        here = written.setdefault(tenths(frame.time, frame), {})
        for name, (x, y) in frame.points.items():
            place = thousandths(x, frame), thousandths(y, frame)
            if here.setdefault(name, place) != place:
                raise ValueError(
                    f"tracks of {label!r}: object {name!r} is at two places at {tenths(frame.time, frame)} s"
                )
    numbers: dict[str, int] = {}
    numbered = []
    for time, places in sorted(written.items()):
        for name in sorted(places, key=places.__getitem__):
            numbers.setdefault(name, len(numbers) + 1)
        if places:
            numbered.append((time, sorted((numbers[name], x, y) for name, (x, y) in places.items())))
    tag = write_tag("tracks", label, alt, numbered, version=version)  # without tracks, too: it checks the texts
    return tag if numbered else NO_TRACKS


def start_and_end(frames: Iterable[TrackFrame]) -> tuple[TrackFrame, ...]:
    """The first and the last frame in which each object is visible, frames of one time as one, in order of time.

        0.0 a b | 0.5 a | 1.0 a b c | 1.5 a   ->   0.0 a b | 1.0 b c | 1.5 a

    The public reference takes the first and last annotated frame, and then leaves out an object that is occluded there.
    Raises ValueError for an object at two places at one time.
    """
    seen: dict[str, list[float]] = {}
    places: dict[tuple[float, str], tuple[float, float]] = {}
    for frame in sorted(frames, key=lambda frame: frame.time):
        for name, place in frame.points.items():
            seen.setdefault(name, []).append(frame.time)
            if places.setdefault((frame.time, name), place) != place:
                raise ValueError(f"object {name!r} is at two places at {frame.time} s")
    kept: dict[float, dict[str, tuple[float, float]]] = {}
    for (time, name), place in places.items():
        if time in (seen[name][0], seen[name][-1]):
            kept.setdefault(time, {})[name] = place
    return tuple(TrackFrame(time, points) for time, points in kept.items())


def from_query(frames: Iterable[TrackFrame], object_id: str, time: float) -> tuple[TrackFrame, ...]:
    """Where one object is after `time` seconds, the moment of the query: frames strictly later that show it, it alone.

    0.0 a b | 0.5 a | 1.0 a b c   from b at 0.0   ->   1.0 b
    """
    return tuple(
        TrackFrame(frame.time, {object_id: frame.points[object_id]})
        for frame in frames
        if frame.time > time and object_id in frame.points
    )


def track_frames(tag: PointTag) -> tuple[TrackFrame, ...]:
    """A tag as read, frame by frame in order of time; objects are named by their numbers: "1", "2", ...

        (tag,) = parse_points('<tracks coords="0.0 1 000 000;0.5 1 100 200">dog</tracks>')
        track_frames(tag)  ->  (TrackFrame(0.0, {"1": (0.0, 0.0)}), TrackFrame(0.5, {"1": (0.1, 0.2)}))

    Of a number that stands in a frame more than once, the first counts, as in the public reference.
    """
    found: dict[float, dict[str, tuple[float, float]]] = {}
    for point in tag.points:
        found.setdefault(float(point.key), {}).setdefault(str(point.index), (point.x, point.y))
    return tuple(TrackFrame(time, points) for time, points in sorted(found.items()))
