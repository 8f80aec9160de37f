r"""Point and track formats of older models. They are parsed, never written.

    format      text                                                  where    x and y
    attributes  <point x="63.5" y="44.5" alt="a dog">dog</point>      image    percent
                <points x1="63.5" y1="44.5" x2="7.0" y2="8.0">dogs</points>
                <points t1=2.5 x1=63.5 y1=44.5/>                      video
    compact     <points dogs\t-\t1 635 445 2 070 080/>                image    thousandths, or percent with a point
                <points 2.5\t1 63.5 44.5/>                            video
    clicks      Click(63.5, 44.5)                                     image    percent
    frames      time 0.50\n{0: [34.0, 63.0], 1: [72.0, 49.0, yes]}    tracks   percent; "yes" (occluded) is skipped
    ends        0: ([34.0, 63.0, 0.50], [35.0, 64.0, 1.00])           tracks   percent, then seconds
    numbers     1 635 445 2 070 080  or  1 63.5 44.5                  image    as in compact
    pairs       (63.5, 44.5), (7.0, 8.0)                              image    percent
    equations   p=635,445  or  1=635,445                              image    thousandths
    path        [35.0, 64.0, 0.50], [36.0, 64.0, 1.00]                tracks   percent, then seconds

Two rules are our own. The last four formats are bare numbers: they count only if the text contains nothing else, or
"call 1 800 555" would be a point. Tracked objects keep the numbers they have in the text, which start at 0; the object
of a path is 0. Source: public reference olmo/preprocessing/point_formatter.py (LegacyPointFormatting) and
olmo/eval/object_tracking_utils.py.
"""

import re
from collections.abc import Iterable, Iterator

from data_pipelines.text.point_tag import PERCENT, THOUSANDTHS, IndexedPoint, PointTag

IMAGE = 1  # the key of the only image

_INDEX = r"(?<!\d)(\d{1,9})"  # longer runs of digits are skipped: int() refuses thousands of digits
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_COORDINATE = r"(?:\d{1,9}\.\d{1,9}|\d{3,4})"  # percent, or thousandths
_TRIPLE = rf"{_INDEX} ({_COORDINATE}) ({_COORDINATE})"
_TRIPLES = rf"((?:\d{{1,9}} {_COORDINATE} {_COORDINATE} ?)+)"
_STEP = rf"\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]"

_ATTRIBUTE = re.compile(r'(\w+)=(?:"([^"]*)"|([\d.]+))')
_ATTRIBUTES = re.compile(r'<(points?)((?:\s+\w+=(?:"[^"]*"|[\d.]+))+)(?:\s*/?>(?:([^<>]*)</\1>)?)?')
_IMAGE_COMPACT = re.compile(rf"<points ([^\t<>]*)\t([^\t<>]*)\t{_TRIPLES}\s*/>")
_VIDEO_COMPACT = re.compile(rf"<points ({_NUMBER})\s{_TRIPLES}\s*/>")
_CLICK = re.compile(rf"Click\(({_NUMBER}), ?({_NUMBER})\)")
_FRAME = re.compile(rf"time\s+({_NUMBER})(?=[^\S\n]*\n)\s*+\{{([^{{}}]*)\}}")
_OBJECT = re.compile(rf"{_INDEX}\s*:\s*\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]")
_ENDS = re.compile(rf"{_INDEX}\s*:\s*\(\s*{_STEP}\s*,\s*{_STEP}\s*\)")
_PAIR = r"\((\d{1,9}\.\d{1,9}),? ?(\d{1,9}\.\d{1,9})\)"
_EQUATION = r"(?:(?<!\d)\d{1,9}|p)\s*=\s*(\d{3})\s*,\s*(\d{3})"

RawPoint = tuple[str | int, float | int, float, float]  # index, key, x and y as fractions


def read_legacy(text: str) -> list[PointTag]:
    r"""The points of the first of the formats above that a text contains, [] if none; keys and fractions as in any tag.

        read_legacy("time 0.50\n{0: [34.0, 63.0]}")
        ->  [PointTag("tracks", "", None, (IndexedPoint(0, 0.5, 0.34, 0.63),))]

    A format without tags gives one PointTag with label "". Points outside the frame are skipped.
    """
    readers = (
        _read_attributes,
        _read_compact,
        _read_clicks,
        _read_frames,
        _read_ends,
        _read_numbers,
        _read_pairs,
        _read_equations,
        _read_path,
    )
    for read in readers:
        tags = [tag for tag in read(text) if tag.points]
        if tags:
            return tags
    return []


def _read_attributes(text: str) -> Iterator[PointTag]:
    for match in _ATTRIBUTES.finditer(text):
        values = {name: (quoted or bare).strip() for name, quoted, bare in _ATTRIBUTE.findall(match[2])}
        numbers = {name: float(value) for name, value in values.items() if re.fullmatch(_NUMBER, value)}
        times = [value for name, value in numbers.items() if re.fullmatch(r"t\d{0,9}", name)]
        indices = [name[1:] for name in numbers if re.fullmatch(r"x\d{0,9}", name) and f"y{name[1:]}" in numbers]
        key = times[0] if times else IMAGE
        points = [(i or 1, key, numbers[f"x{i}"] / PERCENT, numbers[f"y{i}"] / PERCENT) for i in indices]
        yield _make_tag("points", points, match[3] or "", values.get("alt"))


def _read_compact(text: str) -> Iterator[PointTag]:
    for label, alt, triples in _IMAGE_COMPACT.findall(text):
        yield _make_tag("points", _read_triples(triples, IMAGE), label, None if alt == "-" else alt)
    for time, triples in _VIDEO_COMPACT.findall(text):
        yield _make_tag("points", _read_triples(triples, float(time)))


def _read_clicks(text: str) -> Iterator[PointTag]:
    yield _make_image_tag((float(x) / PERCENT, float(y) / PERCENT) for x, y in _CLICK.findall(text))


def _read_frames(text: str) -> Iterator[PointTag]:
    yield _make_tag(
        "tracks",
        (
            (index, float(time), float(x) / PERCENT, float(y) / PERCENT)
            for time, objects in _FRAME.findall(text)
            for index, x, y in _OBJECT.findall(objects)
        ),
    )


def _read_ends(text: str) -> Iterator[PointTag]:
    found = [(index, step) for index, *steps in _ENDS.findall(text) for step in (steps[:3], steps[3:])]
    yield _make_tag("tracks", ((index, float(t), float(x) / PERCENT, float(y) / PERCENT) for index, (x, y, t) in found))


def _read_numbers(text: str) -> Iterator[PointTag]:
    if _contains_only(_TRIPLE, text):
        yield _make_tag("points", _read_triples(text, IMAGE))


def _read_pairs(text: str) -> Iterator[PointTag]:
    if _contains_only(_PAIR, text):
        yield _make_image_tag((float(x) / PERCENT, float(y) / PERCENT) for x, y in re.findall(_PAIR, text))


def _read_equations(text: str) -> Iterator[PointTag]:
    if _contains_only(_EQUATION, text):
        yield _make_image_tag((float(x) / THOUSANDTHS, float(y) / THOUSANDTHS) for x, y in re.findall(_EQUATION, text))


def _read_path(text: str) -> Iterator[PointTag]:
    if _contains_only(_STEP, text):
        points = ((0, float(t), float(x) / PERCENT, float(y) / PERCENT) for x, y, t in re.findall(_STEP, text))
        yield _make_tag("tracks", points)


def _contains_only(pattern: str, text: str) -> bool:
    """Whether the text consists of matches and the separators of a list."""
    return not re.sub(pattern, "", text).strip(" ,;.\t\n")


def _read_triples(text: str, key: float | int) -> Iterator[RawPoint]:
    for index, x, y in re.findall(_TRIPLE, text):
        yield index, key, _fraction(x), _fraction(y)


def _fraction(coordinate: str) -> float:
    """Percent "63.5" or thousandths "635" -> 0.635."""
    return float(coordinate) / (PERCENT if "." in coordinate else THOUSANDTHS)


def _make_image_tag(points: Iterable[tuple[float, float]]) -> PointTag:
    """Points (x, y) of the only image, numbered 1, 2, ..."""
    return _make_tag("points", [(index, IMAGE, x, y) for index, (x, y) in enumerate(points, start=1)])


def _make_tag(kind: str, raw: Iterable[RawPoint], label: str = "", alt: str | None = None) -> PointTag:
    points = [IndexedPoint(int(index), key, x, y) for index, key, x, y in raw if x <= 1 and y <= 1]
    if kind == "tracks":
        points.sort(key=lambda p: (p.key, p.index))  # frame by frame, as in a tag; some old formats go by object
    return PointTag(kind, label, alt, tuple(points))
