"""Points as text: what the model writes to point and to count, in Molmo2's formats.

    image    <points coords="1 1 050 1000 2 100 200">dogs</points>
    images   <points coords="1 1 010 020 2 100 200;3 3 500 500">cat</points>          images 1 and 3
    video    <points coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>      0.0 s and 2.5 s
    counted  Counting the <points coords="1 1 050 1000 2 100 200">dogs</points> shows a total of 2.

Points are numbered 1, 2, ... through all frames. The tag itself is text/point_tag.py, tracks are text/tracks.py.
Source: public reference olmo/preprocessing/point_formatter.py.
"""

import dataclasses
import itertools
import numbers
from collections.abc import Iterable

from molmo2_jax.text.legacy_points import read_legacy
from molmo2_jax.text.point_tag import IndexedPoint, PointTag, read_tags, tenths, thousandths, write_tag

__all__ = ["NOTHING", "SENTENCES", "IndexedPoint", "Point", "PointTag", "parse_points", "write_points"]

SENTENCES = {  # what an answer says around the tag
    "point": "{tag}",
    "point_count": "Counting the {tag} shows a total of {count}.",
    "count_point": "There are {count} {tag}.",
    "count": "{count}",
}
NOTHING = "There are none."


@dataclasses.dataclass(frozen=True)
class Point:
    """A point to write. `key`: seconds (float, video) or the image's number from 1 (int); x, y in [0, 1]."""

    key: float | int
    x: float
    y: float


def write_points(
    label: str, points: Iterable[Point], *, version: str, mode: str = "point", alt: str | None = None
) -> str:
    """The answer that points at all `points`, frames in order of their keys, points of a frame in order of (x, y).

        cats = [Point(2.5, 0.5, 0.5), Point(0.0, 0.1, 0.2), Point(0.0, 0.01, 0.02)]
        write_points("cat", cats, version="html-v2", mode="count_point")
        ->  There are 3 <points coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>.

    `version` is one of SEPARATORS (point_tag.py), `mode` one of SENTENCES. No points at all: "There are none.". Seconds
    are rounded to tenths, and frames of one tenth are one frame. x and y outside [0, 1] go to the nearest edge, each by
    itself. Raises ValueError for an unknown version or mode, a key or coordinate that is no place, and a label or alt
    that the format cannot hold.
    """
    if mode not in SENTENCES:
        raise ValueError(f"mode {mode!r} is not one of {list(SENTENCES)}")
    places = sorted((_key(p), thousandths(p.x, p), thousandths(p.y, p)) for p in points)
    if len({type(key) for key, _, _ in places}) > 1:
        raise ValueError(f"points of {label!r} mix seconds and image numbers: {[key for key, _, _ in places]}")
    numbered = enumerate(places, start=1)
    frames = [
        (key, [(index, x, y) for index, (_, x, y) in group])
        for key, group in itertools.groupby(numbered, key=lambda item: item[1][0])
    ]
    tag = write_tag("points", label, alt, frames, version=version)  # without points, too: it checks the texts
    return SENTENCES[mode].format(tag=tag, count=len(places)) if places else NOTHING


def parse_points(text: str) -> list[PointTag]:
    """Every tag in a text, in order, of either version; a text without any is tried for older forms.

        parse_points('Here: <points coords="1 1 050 1000">dogs</points>')
        ->  [PointTag("points", "dogs", None, (IndexedPoint(1, 1, 0.05, 1.0),))]
        parse_points('<point x="5.0" y="100.0" alt="a dog">dog</point>')
        ->  [PointTag("points", "dog", "a dog", (IndexedPoint(1, 1, 0.05, 1.0),))]

    What follows no format is passed over, since models write anything: see `read_tags` and `read_legacy`.
    """
    return read_tags(text) or read_legacy(text)


def _key(point: Point) -> float | int:
    """The key as it will be written, so that points of one written frame sort and group as one."""
    if isinstance(point.key, numbers.Integral):
        if point.key < 1:
            raise ValueError(f"{point}: images are numbered from 1")
        return int(point.key)
    return tenths(point.key, point)
