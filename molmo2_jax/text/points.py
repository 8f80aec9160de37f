"""Points as text: what the model writes to point, in the format `html-v2` of Molmo2.

    image    <points coords="1 1 050 1000 2 100 200">dogs</points>
    images   <points coords="1 1 010 020 2 100 200;3 3 500 500">cat</points>          images 1 and 3
    video    <points coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>      0.0 s and 2.5 s
    tracks   <tracks coords="0.0 1 156 139 2 469 556;0.5 1 172 139">dogs</tracks>     only read here

A frame is its key (image number, or seconds) and its points; a point is its number, x and y. x and y are thousandths of
the width and the height, in at least three digits. Points are numbered 1, 2, ... through all frames, in a track the
number is the object's. Source: public reference olmo/preprocessing/point_formatter.py.
"""

import dataclasses
import itertools
import math
import numbers
import re
from collections.abc import Iterable

SENTENCES = {  # what an answer says around the tag
    "point": "{tag}",
    "point_count": "Counting the {tag} shows a total of {count}.",
    "count_point": "There are {count} {tag}.",
    "count": "{count}",
}
NOTHING = "There are none."

_TAG = re.compile(
    r'<(?P<kind>points|tracks)(?P<attributes>(?: \w+="[^"]*")*?) coords="(?P<coords>[0-9\t:;, .]+)"/?>'
    r"(?:(?P<label>(?:(?!<(?:points|tracks) ).)*?)</(?P=kind)>)?",
    re.DOTALL,
)
_ALT = re.compile(r' alt="([^"]*)"')
_KEY = re.compile(r"\d+(\.\d+)?")
_POINT = re.compile(r"(?<!\d)(\d+) (\d{3,4}) (\d{3,4})(?!\d)")
_ANY_TAG = re.compile(r"</?(points|tracks)")


@dataclasses.dataclass(frozen=True)
class Point:
    """A point to write. `key`: seconds (float, video) or the image's number from 1 (int); x, y in [0, 1]."""

    key: float | int
    x: float
    y: float


@dataclasses.dataclass(frozen=True)
class IndexedPoint:
    """A point as read: `index` is its number, or its object's in a track; otherwise as in `Point`."""

    index: int
    key: float | int
    x: float
    y: float


@dataclasses.dataclass(frozen=True)
class PointTag:
    """One tag as read. `kind` is "points" or "tracks"; `alt` is None and `label` "" where the text has none."""

    kind: str
    label: str
    alt: str | None
    points: tuple[IndexedPoint, ...]


def write_points(label: str, points: Iterable[Point], *, mode: str = "point", alt: str | None = None) -> str:
    """The answer that points at all `points`, frames in order of their keys, points of a frame in order of (x, y).

        write_points("cat", [Point(2.5, 0.5, 0.5), Point(0.0, 0.1, 0.2), Point(0.0, 0.01, 0.02)], mode="count_point")
        ->  There are 3 <points coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>.

    `mode` is one of SENTENCES. No points at all: "There are none.". Seconds are rounded to tenths, and frames of one
    tenth are one frame. x and y outside [0, 1] go to the nearest edge, each by itself. Raises ValueError for an unknown
    mode, a key or coordinate that is no place, and a label or alt that the format cannot hold.
    """
    if mode not in SENTENCES:
        raise ValueError(f"mode {mode!r} is not one of {list(SENTENCES)}")
    _check_texts(label, alt)
    places = sorted((_key(p), _thousandths(p.x, p), _thousandths(p.y, p)) for p in points)
    if not places:
        return NOTHING
    if len({type(key) for key, _, _ in places}) > 1:
        raise ValueError(f"points of {label!r} mix seconds and image numbers: {[key for key, _, _ in places]}")
    frames = []
    numbered = enumerate(places, start=1)
    for key, group in itertools.groupby(numbered, key=lambda item: item[1][0]):
        frames.append(" ".join([str(key), *(f"{index} {x:03d} {y:03d}" for index, (_, x, y) in group)]))
    named = "" if alt is None else f' alt="{alt}"'
    tag = f'<points{named} coords="{";".join(frames)}">{label}</points>'
    return SENTENCES[mode].format(tag=tag, count=len(places))


def parse_points(text: str) -> list[PointTag]:
    """Every tag in a text, in order; what does not follow the format is passed over, since models write anything.

        parse_points('Here: <points coords="1 1 050 1000">dogs</points>')
        ->  [PointTag("points", "dogs", None, (IndexedPoint(1, 1, 0.05, 1.0),))]

    A key with a decimal point is seconds, one without is an image number. A missing closing tag (a cut answer) leaves
    the label empty. Points beyond the far edge (more than 1000) are left out, as in the public reference.
    """
    tags = []
    for match in _TAG.finditer(text):
        alt = _ALT.search(match["attributes"])
        found = tuple(_read_frames(match["coords"]))
        tags.append(PointTag(match["kind"], match["label"] or "", alt and alt[1], found))
    return tags


def _read_frames(coords: str) -> Iterable[IndexedPoint]:
    # html-v1 separates frames by tabs, html-v2 by semicolons; models have been seen to write the others.
    for frame in re.split(r"[\t:;,]", coords):
        key, _, rest = frame.strip(" ").partition(" ")
        if not _KEY.fullmatch(key):
            continue
        for index, x, y in _POINT.findall(rest):
            if int(x) <= 1000 and int(y) <= 1000:
                yield IndexedPoint(int(index), float(key) if "." in key else int(key), int(x) / 1000, int(y) / 1000)


def _key(point: Point) -> float | int:
    """The key as it will be written, so that points of one written frame sort and group as one."""
    if isinstance(point.key, numbers.Integral):
        if point.key < 1:
            raise ValueError(f"{point}: images are numbered from 1")
        return int(point.key)
    seconds = round(float(point.key), 1) + 0.0  # no -0.0
    if not (0 <= seconds < math.inf):
        raise ValueError(f"{point}: a time must be at least 0 s")
    return seconds


def _thousandths(value: float, point: Point) -> int:
    if not math.isfinite(value):
        raise ValueError(f"{point}: a coordinate is not a number")
    return round(1000 * min(max(float(value), 0.0), 1.0))


def _check_texts(label: str, alt: str | None) -> None:
    if _ANY_TAG.search(label):
        raise ValueError(f"label {label!r} holds a points or tracks tag itself; it could not be read back")
    if alt is not None and ('"' in alt or "\n" in alt):
        raise ValueError(f'alt {alt!r} holds a " or a line end, which ends the attribute; it could not be read back')
