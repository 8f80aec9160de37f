r"""The spellings of places before the tags of today: read, never written.

    form        text                                                  where    x and y
    attributes  <point x="63.5" y="44.5" alt="a dog">dog</point>      image    percent
                <points x1="63.5" y1="44.5" x2="7.0" y2="8.0">dogs</points>
                <points t1=2.5 x1=63.5 y1=44.5/>                      video
    compact     <points dogs\t-\t1 635 445 2 070 080/>                image    thousandths, or percent with a point
                <points 2.5\t1 63.5 44.5/>                            video
    clicks      Click(63.5, 44.5)                                     image    percent
    frames      time 0.50\n{0: [34.0, 63.0], 1: [72.0, 49.0, yes]}    tracks   percent; "yes", occluded, is left out
    ends        0: ([34.0, 63.0, 0.50], [35.0, 64.0, 1.00])           tracks   percent, then seconds
    numbers     1 635 445 2 070 080  or  1 63.5 44.5                  image    as in compact
    pairs       (63.5, 44.5), (7.0, 8.0)                              image    percent
    equations   p=635,445  or  1=635,445                              image    thousandths
    path        [35.0, 64.0, 0.50], [36.0, 64.0, 1.00]                tracks   percent, then seconds

Two readings are our own. The last four forms are numbers without a name: they count only where the whole text is made
of them, or "call 1 800 555" would be a point. And tracked objects keep the numbers that they have in the text, where
they were counted from 0; the object of a path is 0. Source: public reference olmo/preprocessing/point_formatter.py
(LegacyPointFormatting) and olmo/eval/object_tracking_utils.py.
"""

import re
from collections.abc import Iterable, Iterator

from molmo2_jax.text.point_tag import IndexedPoint, PointTag

IMAGE = 1  # the key of the only image

_INDEX = r"(?<!\d)(\d{1,9})"  # a run of more digits is no number: int() refuses thousands of them
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
_FRAME = re.compile(rf"time\s+({_NUMBER})\s*\n\s*\{{([^{{}}]*)\}}")
_OBJECT = re.compile(rf"{_INDEX}\s*:\s*\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]")
_ENDS = re.compile(rf"{_INDEX}\s*:\s*\(\s*{_STEP}\s*,\s*{_STEP}\s*\)")
_PAIR = r"\((\d{1,9}\.\d{1,9}),? ?(\d{1,9}\.\d{1,9})\)"
_EQUATION = r"(?:(?<!\d)\d{1,9}|p)\s*=\s*(\d{3})\s*,\s*(\d{3})"

Place = tuple[str | int, float | int, float, float]  # number, key, x and y as fractions


def read_legacy(text: str) -> list[PointTag]:
    r"""The places of the first of the forms above that a text holds, [] for none; keys and fractions as in any tag.

        read_legacy("time 0.50\n{0: [34.0, 63.0]}")
        ->  [PointTag("tracks", "", None, (IndexedPoint(0, 0.5, 0.34, 0.63),))]

    A form without tags gives one tag, whose label is "". Coordinates beyond the far edge are left out.
    """
    for read in (_attributes, _compact, _clicks, _frames, _ends, _numbers, _pairs, _equations, _path):
        tags = [tag for tag in read(text) if tag.points]
        if tags:
            return tags
    return []


def _attributes(text: str) -> Iterator[PointTag]:
    for match in _ATTRIBUTES.finditer(text):
        values = {name: (quoted or bare).strip() for name, quoted, bare in _ATTRIBUTE.findall(match[2])}
        figures = {name: float(value) for name, value in values.items() if re.fullmatch(_NUMBER, value)}
        times = [value for name, value in figures.items() if re.fullmatch(r"t\d{0,9}", name)]
        numbers = [name[1:] for name in figures if re.fullmatch(r"x\d{0,9}", name) and f"y{name[1:]}" in figures]
        key = times[0] if times else IMAGE
        places = [(n or 1, key, figures[f"x{n}"] / 100, figures[f"y{n}"] / 100) for n in numbers]
        yield _tag("points", places, match[3] or "", values.get("alt"))


def _compact(text: str) -> Iterator[PointTag]:
    for label, alt, triples in _IMAGE_COMPACT.findall(text):
        yield _tag("points", _read_triples(triples, IMAGE), label, None if alt == "-" else alt)
    for time, triples in _VIDEO_COMPACT.findall(text):
        yield _tag("points", _read_triples(triples, float(time)))


def _clicks(text: str) -> Iterator[PointTag]:
    yield _counted((float(x) / 100, float(y) / 100) for x, y in _CLICK.findall(text))


def _frames(text: str) -> Iterator[PointTag]:
    yield _tag(
        "tracks",
        (
            (number, float(time), float(x) / 100, float(y) / 100)
            for time, objects in _FRAME.findall(text)
            for number, x, y in _OBJECT.findall(objects)
        ),
    )


def _ends(text: str) -> Iterator[PointTag]:
    found = [(number, step) for number, *steps in _ENDS.findall(text) for step in (steps[:3], steps[3:])]
    yield _tag("tracks", ((number, float(t), float(x) / 100, float(y) / 100) for number, (x, y, t) in found))


def _numbers(text: str) -> Iterator[PointTag]:
    if _whole(_TRIPLE, text):
        yield _tag("points", _read_triples(text, IMAGE))


def _pairs(text: str) -> Iterator[PointTag]:
    if _whole(_PAIR, text):
        yield _counted((float(x) / 100, float(y) / 100) for x, y in re.findall(_PAIR, text))


def _equations(text: str) -> Iterator[PointTag]:
    if _whole(_EQUATION, text):
        yield _counted((float(x) / 1000, float(y) / 1000) for x, y in re.findall(_EQUATION, text))


def _path(text: str) -> Iterator[PointTag]:
    if _whole(_STEP, text):
        yield _tag("tracks", ((0, float(t), float(x) / 100, float(y) / 100) for x, y, t in re.findall(_STEP, text)))


def _whole(pattern: str, text: str) -> bool:
    """Whether there is nothing in the text but matches, and what stands between the members of a list."""
    return not re.sub(pattern, "", text).strip(" ,;.\t\n")


def _read_triples(text: str, key: float | int) -> Iterator[Place]:
    for number, x, y in re.findall(_TRIPLE, text):
        yield number, key, _fraction(x), _fraction(y)


def _fraction(coordinate: str) -> float:
    return float(coordinate) / (100 if "." in coordinate else 1000)


def _counted(places: Iterable[tuple[float, float]]) -> PointTag:
    return _tag("points", [(number, IMAGE, x, y) for number, (x, y) in enumerate(places, start=1)])


def _tag(kind: str, places: Iterable[Place], label: str = "", alt: str | None = None) -> PointTag:
    points = [IndexedPoint(int(number), key, x, y) for number, key, x, y in places if x <= 1 and y <= 1]
    if kind == "tracks":
        points.sort(key=lambda p: (p.key, p.index))  # frame by frame, as in a tag; old forms go object by object, too
    return PointTag(kind, label, alt, tuple(points))
