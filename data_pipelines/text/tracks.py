"""Tracks as text: the positions of objects over time, in Molmo2's formats.

    frames               0.0 s  b (.469, .556)  a (.156, .139)
                         0.5 s  a (.172, .139)
                         1.0 s  b (.500, .556)  a (.188, .139)  c (.002, .003)

    all           <tracks coords="0.0 1 156 139 2 469 556;0.5 1 172 139;1.0 1 188 139 2 500 556 3 002 003">dogs</tracks>
    start, end    <tracks coords="0.0 1 156 139 2 469 556;1.0 1 188 139 2 500 556 3 002 003">dogs</tracks>
    b from 0.0 s  <tracks coords="1.0 1 500 556">dogs</tracks>

Objects are numbered by first appearance, those that appear together by (x, y), and keep their numbers: b is missing at
0.5 s and is 2 again at 1.0 s. points.py writes the point that a query asks about, point_tag.py the tag itself.
Source: public reference olmo/preprocessing/point_formatter.py.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from data_pipelines.text.point_tag import PointTag, tenths, thousandths, write_tag

NO_TRACKS = "No tracks available."


@dataclasses.dataclass(frozen=True)
class TrackFrame:
    """The objects visible at `time` seconds: object id -> (x, y), fractions of the frame's width and height."""

    time: float
    points: Mapping[str, tuple[float, float]]


def write_tracks(label: str, frames: Iterable[TrackFrame], *, version: str, alt: str | None = None) -> str:
    """The answer that tracks every object of `frames`, ordered by time; the objects of a frame by number.

        write_tracks("dog", [TrackFrame(0.5, {"7": (0.1, 0.2)}), TrackFrame(0.0, {"7": (0, 0)})], version="html-v2")
        ->  <tracks coords="0.0 1 000 000;0.5 1 100 200">dog</tracks>

    Frames without a visible object are skipped. If no frame is left, the answer is "No tracks available."; the public
    reference writes an empty answer if all frames are empty, which gives no training signal. Seconds are rounded to
    tenths; frames with the same tenth are merged. x and y are clipped to [0, 1]. `version` is a key of SEPARATORS
    (point_tag.py).

    Raises:
      ValueError: the version is unknown, an object has two positions in the same tenth of a second, a time or
        coordinate is invalid, or the format cannot hold the label or alt.
    """
    written: dict[float, dict[str, tuple[int, int]]] = {}
    for frame in frames:
        here = written.setdefault(tenths(frame.time, frame), {})
        for name, (x, y) in frame.points.items():
            position = thousandths(x, frame), thousandths(y, frame)
            if here.setdefault(name, position) != position:
                raise ValueError(
                    f"tracks of {label!r}: object {name!r} has two positions at {tenths(frame.time, frame)} s"
                )
    numbers: dict[str, int] = {}
    numbered = []
    for time, positions in sorted(written.items()):
        for name in sorted(positions, key=positions.__getitem__):
            numbers.setdefault(name, len(numbers) + 1)
        if positions:
            numbered.append((time, sorted((numbers[name], x, y) for name, (x, y) in positions.items())))
    tag = write_tag("tracks", label, alt, numbered, version=version)  # also without tracks, to check label and alt
    return tag if numbered else NO_TRACKS


def start_and_end(frames: Iterable[TrackFrame]) -> tuple[TrackFrame, ...]:
    """The first and last frame in which each object is visible, ordered by time; frames with the same time are merged.

        0.0 a b | 0.5 a | 1.0 a b c | 1.5 a   ->   0.0 a b | 1.0 b c | 1.5 a

    The public reference takes the first and last annotated frame, and omits an object that is occluded there. Raises
    ValueError if an object has two positions at the same time.
    """
    seen: dict[str, list[float]] = {}
    positions: dict[tuple[float, str], tuple[float, float]] = {}
    for frame in sorted(frames, key=lambda frame: frame.time):
        for name, position in frame.points.items():
            seen.setdefault(name, []).append(frame.time)
            if positions.setdefault((frame.time, name), position) != position:
                raise ValueError(f"object {name!r} has two positions at {frame.time} s")
    kept: dict[float, dict[str, tuple[float, float]]] = {}
    for (time, name), position in positions.items():
        if time in (seen[name][0], seen[name][-1]):
            kept.setdefault(time, {})[name] = position
    return tuple(TrackFrame(time, points) for time, points in kept.items())


def from_query(frames: Iterable[TrackFrame], object_id: str, time: float) -> tuple[TrackFrame, ...]:
    """The track of one object after `time` seconds (the query): later frames in which it is visible, it alone.

    0.0 a b | 0.5 a | 1.0 a b c   from b at 0.0   ->   1.0 b
    """
    return tuple(
        TrackFrame(frame.time, {object_id: frame.points[object_id]})
        for frame in frames
        if frame.time > time and object_id in frame.points
    )


def track_frames(tag: PointTag) -> tuple[TrackFrame, ...]:
    """The frames of a parsed tag, ordered by time; objects are named by their numbers: "1", "2", ...

        (tag,) = parse_points('<tracks coords="0.0 1 000 000;0.5 1 100 200">dog</tracks>')
        track_frames(tag)  ->  (TrackFrame(0.0, {"1": (0.0, 0.0)}), TrackFrame(0.5, {"1": (0.1, 0.2)}))

    If a frame contains a number more than once, the first counts, as in the public reference.
    """
    found: dict[float, dict[str, tuple[float, float]]] = {}
    for point in tag.points:
        found.setdefault(float(point.key), {}).setdefault(str(point.index), (point.x, point.y))
    return tuple(TrackFrame(time, points) for time, points in sorted(found.items()))
