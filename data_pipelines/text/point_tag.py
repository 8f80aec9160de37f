"""The grammar that `<points ...>` and `<tracks ...>` tags share: writing and parsing them.

    html-v2   <points alt="a cat" coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>
                      ATTRIBUTE           KEY INDEX X Y  ...      SEPARATOR      LABEL

    html-v1 separates frames by a tab, html-v2 by a semicolon. There is no other difference.

A frame is a key (image number, or seconds with one decimal) and points. A point is an index, then x and y in
thousandths of the width and height, with at least three digits.
Source: public reference olmo/preprocessing/point_formatter.py.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

THOUSANDTHS = 1000  # coordinates in a tag are thousandths of the width and height
PERCENT = 100  # those of older formats and of published tables
SEPARATORS = {"html-v1": "\t", "html-v2": ";"}  # between frames, by version of the format

_TAG = re.compile(
    r'<(?P<kind>points|tracks)(?P<attributes>(?: \w+="[^"]*")*?) coords="(?P<coords>[0-9\t:;, .]+)"/?>'
    r"(?:(?P<label>(?:(?!<(?:points|tracks) ).)*?)</(?P=kind)>)?",
    re.DOTALL,
)
_ALT = re.compile(r' alt="([^"]*)"')
_KEY = re.compile(r"\d{1,9}(\.\d{1,9})?")  # longer runs of digits are skipped: int() refuses thousands of digits
_POINT = re.compile(r"(?<!\d)(\d{1,9}) (\d{3,4}) (\d{3,4})(?!\d)")
_ANY_TAG = re.compile(r"</?(points|tracks)")


@dataclasses.dataclass(frozen=True)
class IndexedPoint:
    """A parsed point. `index`: the number of the point, or of its object in a track.

    `key`: seconds (float) or image number (int). x and y are fractions of the width and height, in [0, 1].
    """

    index: int
    key: float | int
    x: float
    y: float


@dataclasses.dataclass(frozen=True)
class PointTag:
    """A parsed tag. `kind` is "points" or "tracks"; `alt` is None and `label` "" if the text has none."""

    kind: str
    label: str
    alt: str | None
    points: tuple[IndexedPoint, ...]


Frame = tuple[float | int, Iterable[tuple[int, int, int]]]  # key, (index, x, y) with x and y in thousandths


def write_tag(kind: str, label: str, alt: str | None, frames: Iterable[Frame], *, version: str) -> str:
    """The text of one tag, with frames and points in the given order.

        write_tag("tracks", "dog", None, [(0.0, [(1, 5, 1000)]), (0.5, [(1, 7, 990)])], version="html-v2")
        ->  <tracks coords="0.0 1 005 1000;0.5 1 007 990">dog</tracks>

    Raises:
      ValueError: the version is unknown, or the format cannot hold the label or alt.
    """
    if version not in SEPARATORS:
        raise ValueError(f"points format {version!r} is not one of {list(SEPARATORS)}")
    _check_label_and_alt(label, alt)
    coords = SEPARATORS[version].join(
        " ".join([str(key), *(f"{index} {x:03d} {y:03d}" for index, x, y in points)]) for key, points in frames
    )
    attribute = "" if alt is None else f' alt="{alt}"'
    return f'<{kind}{attribute} coords="{coords}">{label}</{kind}>'


def read_tags(text: str) -> list[PointTag]:
    """Every tag in a text, in order, of either version. Text that does not follow the format is skipped.

        read_tags('Here: <points coords="1 1 050 1000">dogs</points>')
        ->  [PointTag("points", "dogs", None, (IndexedPoint(1, 1, 0.05, 1.0),))]

    A key with a decimal point is in seconds, one without is an image number. A missing closing tag (a truncated
    answer) leaves the label empty. Coordinates above 1000 are outside the frame; their points are skipped, as in the
    public reference.
    """
    tags = []
    for match in _TAG.finditer(text):
        alt = _ALT.search(match["attributes"])
        found = tuple(_read_frames(match["coords"]))
        tags.append(PointTag(match["kind"], match["label"] or "", alt and alt[1], found))
    return tags


def _check_label_and_alt(label: str, alt: str | None) -> None:
    """Raise ValueError if a label or alt could not be parsed back from its tag."""
    if _ANY_TAG.search(label):
        raise ValueError(f"label {label!r} contains a points or tracks tag; it could not be read back")
    if alt is not None and ('"' in alt or "\n" in alt):
        raise ValueError(f'alt {alt!r} contains a " or a newline, which ends the attribute; it could not be read back')


def thousandths(fraction: float, where: object) -> int:
    """A coordinate as written in a tag: 0.0625 -> 62, 1.2 -> 1000. Values outside [0, 1] are clipped.

    Raises ValueError, naming `where`, if it is not a finite number.
    """
    if not math.isfinite(fraction):
        raise ValueError(f"{where}: a coordinate is not a number")
    return round(THOUSANDTHS * min(max(float(fraction), 0.0), 1.0))


def tenths(seconds: float, where: object) -> float:
    """A time as written in a tag: 12.25 -> 12.2, -1e-17 -> 0.0. Raises ValueError, naming `where`, below 0 s."""
    rounded = round(float(seconds), 1) + 0.0  # no -0.0
    if not (0 <= rounded < math.inf):
        raise ValueError(f"{where}: a time must be at least 0 s")
    return rounded


def _read_frames(coords: str) -> Iterator[IndexedPoint]:
    # Models sometimes write other separators than these two versions have.
    for frame in re.split(r"[\t:;,]", coords):
        key, _, rest = frame.strip(" ").partition(" ")
        if not _KEY.fullmatch(key):
            continue
        for index, x, y in _POINT.findall(rest):
            if int(x) <= THOUSANDTHS and int(y) <= THOUSANDTHS:
                yield IndexedPoint(
                    int(index), float(key) if "." in key else int(key), int(x) / THOUSANDTHS, int(y) / THOUSANDTHS
                )
