"""The tag around places: what `<points ...>` and `<tracks ...>` have in common, written and read.

    html-v2   <points alt="a cat" coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>
                      ATTRIBUTE           KEY INDEX X Y  ...      SEPARATOR      LABEL

    html-v1 puts a tab between frames, html-v2 a semicolon; all else is equal.

A frame is its key (image number, or seconds in tenths) and its points; a point is its number, x and y in thousandths of
the width and the height, in at least three digits. Source: public reference olmo/preprocessing/point_formatter.py.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

SEPARATORS = {"html-v1": "\t", "html-v2": ";"}  # between frames, by version of the format

_TAG = re.compile(
    r'<(?P<kind>points|tracks)(?P<attributes>(?: \w+="[^"]*")*?) coords="(?P<coords>[0-9\t:;, .]+)"/?>'
    r"(?:(?P<label>(?:(?!<(?:points|tracks) ).)*?)</(?P=kind)>)?",
    re.DOTALL,
)
_ALT = re.compile(r' alt="([^"]*)"')
_KEY = re.compile(r"\d{1,9}(\.\d{1,9})?")  # a run of more digits is no number: int() refuses thousands of them
_POINT = re.compile(r"(?<!\d)(\d{1,9}) (\d{3,4}) (\d{3,4})(?!\d)")
_ANY_TAG = re.compile(r"</?(points|tracks)")


@dataclasses.dataclass(frozen=True)
class IndexedPoint:
    """A point as read. `index`: its number, or its object's in a track; `key`: seconds (float) or image number (int).

    x and y are fractions of the width and the height, in [0, 1].
    """

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


Frame = tuple[float | int, Iterable[tuple[int, int, int]]]  # key, (index, x, y) with x and y in thousandths


def write_tag(kind: str, label: str, alt: str | None, frames: Iterable[Frame], *, version: str) -> str:
    """The text of one tag, frames and points in the order given.

        write_tag("tracks", "dog", None, [(0.0, [(1, 5, 1000)]), (0.5, [(1, 7, 990)])], version="html-v2")
        ->  <tracks coords="0.0 1 005 1000;0.5 1 007 990">dog</tracks>

    Raises ValueError for an unknown version and a label or alt that the format cannot hold.
    """
    if version not in SEPARATORS:
        raise ValueError(f"points format {version!r} is not one of {list(SEPARATORS)}")
    check_texts(label, alt)
    coords = SEPARATORS[version].join(
        " ".join([str(key), *(f"{index} {x:03d} {y:03d}" for index, x, y in points)]) for key, points in frames
    )
    named = "" if alt is None else f' alt="{alt}"'
    return f'<{kind}{named} coords="{coords}">{label}</{kind}>'


def read_tags(text: str) -> list[PointTag]:
    """Every tag in a text, in order, of either version; what does not follow the format is passed over.

        read_tags('Here: <points coords="1 1 050 1000">dogs</points>')
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


def check_texts(label: str, alt: str | None) -> None:
    """Raise ValueError where a label or alt could not be read back out of its tag."""
    if _ANY_TAG.search(label):
        raise ValueError(f"label {label!r} holds a points or tracks tag itself; it could not be read back")
    if alt is not None and ('"' in alt or "\n" in alt):
        raise ValueError(f'alt {alt!r} holds a " or a line end, which ends the attribute; it could not be read back')


def thousandths(fraction: float, where: object) -> int:
    """A coordinate as it is written: 0.0625 -> 62, 1.2 -> 1000. Outside [0, 1] it goes to the nearest edge.

    Raises ValueError that names `where` when it is no number.
    """
    if not math.isfinite(fraction):
        raise ValueError(f"{where}: a coordinate is not a number")
    return round(1000 * min(max(float(fraction), 0.0), 1.0))


def tenths(seconds: float, where: object) -> float:
    """A time as it is written: 12.25 -> 12.2, -1e-17 -> 0.0. Raises ValueError that names `where` below 0 s."""
    rounded = round(float(seconds), 1) + 0.0  # no -0.0
    if not (0 <= rounded < math.inf):
        raise ValueError(f"{where}: a time must be at least 0 s")
    return rounded


def _read_frames(coords: str) -> Iterator[IndexedPoint]:
    # Models have been seen to write other separators than the two.
    for frame in re.split(r"[\t:;,]", coords):
        key, _, rest = frame.strip(" ").partition(" ")
        if not _KEY.fullmatch(key):
            continue
        for index, x, y in _POINT.findall(rest):
            if int(x) <= 1000 and int(y) <= 1000:
                yield IndexedPoint(int(index), float(key) if "." in key else int(key), int(x) / 1000, int(y) / 1000)
