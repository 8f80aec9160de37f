"""Points as text: what the model writes to point and to count, in Molmo2's formats.

    image    <points coords="1 1 050 1000 2 100 200">dogs</points>
    images   <points coords="1 1 010 020 2 100 200;3 3 500 500">cat</points>          images 1 and 3
    video    <points coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>      0.0 s and 2.5 s
    counted  Counting the <points coords="1 1 050 1000 2 100 200">dogs</points> shows a total of 2.

Points are numbered 1, 2, ... across all frames. For the tag itself see point_tag.py, for tracks tracks.py.
Source: public reference olmo/preprocessing/point_formatter.py.
"""

import dataclasses
import itertools
import numbers
from collections.abc import Iterable

from data_pipelines.text.legacy_points import read_legacy
from data_pipelines.text.point_tag import PointTag, read_tags, tenths, thousandths, write_tag

SENTENCES = {  # mode -> the answer around the tag
    "point": "{tag}",
    "point_count": "Counting the {tag} shows a total of {count}.",
    "count_point": "There are {count} {tag}.",
    "count": "{count}",
}
NO_POINTS = "There are none."


@dataclasses.dataclass(frozen=True)
class Point:
    """A point to write. `key`: seconds (float) in a video, or the image number (int) from 1; x, y in [0, 1]."""

    key: float | int
    x: float
    y: float


def write_points(
    label: str, points: Iterable[Point], *, version: str, mode: str = "point", alt: str | None = None
) -> str:
    """The answer that points at all `points`: frames ordered by key, the points of a frame by (x, y).

        cats = [Point(2.5, 0.5, 0.5), Point(0.0, 0.1, 0.2), Point(0.0, 0.01, 0.02)]
        write_points("cat", cats, version="html-v2", mode="count_point")
        ->  There are 3 <points coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>.

    Seconds are rounded to tenths; points with the same tenth share a frame. x and y are clipped to [0, 1].

    Args:
      version: a key of SEPARATORS (point_tag.py).
      mode: a key of SENTENCES. Without points the answer is "There are none." in every mode.

    Raises:
      ValueError: the version or mode is unknown, a key or coordinate is invalid, or the format cannot hold the label
        or alt.
    """
    if mode not in SENTENCES:
        raise ValueError(f"mode {mode!r} is not one of {list(SENTENCES)}")
    rounded = sorted((_written_key(p), thousandths(p.x, p), thousandths(p.y, p)) for p in points)
    if len({type(key) for key, _, _ in rounded}) > 1:
        raise ValueError(f"points of {label!r} mix seconds and image numbers: {[key for key, _, _ in rounded]}")
    numbered = enumerate(rounded, start=1)
    frames = [
        (key, [(index, x, y) for index, (_, x, y) in group])
        for key, group in itertools.groupby(numbered, key=lambda item: item[1][0])
    ]
    tag = write_tag("points", label, alt, frames, version=version)  # also without points, to check label and alt
    return SENTENCES[mode].format(tag=tag, count=len(rounded)) if rounded else NO_POINTS


def parse_points(text: str) -> list[PointTag]:
    """Every tag in a text, in order, of either version. Without any, the formats of older models are tried.

        parse_points('Here: <points coords="1 1 050 1000">dogs</points>')
        ->  [PointTag("points", "dogs", None, (IndexedPoint(1, 1, 0.05, 1.0),))]
        parse_points('<point x="5.0" y="100.0" alt="a dog">dog</point>')
        ->  [PointTag("points", "dog", "a dog", (IndexedPoint(1, 1, 0.05, 1.0),))]

    Text that follows no format is skipped, since models can write anything: see `read_tags` and `read_legacy`.
    """
    return read_tags(text) or read_legacy(text)


def _written_key(point: Point) -> float | int:
    """The key as it is written, so that the points of a written frame are sorted and grouped together."""
    if isinstance(point.key, numbers.Integral):
        if point.key < 1:
            raise ValueError(f"{point}: images are numbered from 1")
        return int(point.key)
    return tenths(point.key, point)
