"""Messages of a light record: from JSON to annotations, in the units of data/annotations.py.

    {"style": S, "question": Q, ANSWER}          Q may be framed by templates; "user" in its place is taken word by word
    {"any": [MESSAGE, ...]}                      one of them, drawn each time

ANSWER is one of

    "answer": "Two."                             or several people's: ["two", "two", "three"]; with "explanation": steps
    "options": ["a bus", "a car"], "correct": 1  or [0, 1]; with "labelled": false where options have no letters
    "answer": {"label": L, "points": [{"time": 5.5, "x": 12, "y": 144}, ...]}
    "answer": {"label": L, "tracks": [{"time": 5.5, "points": {"7": [12, 144]}}, ...], "fps": 2}
    "answer": "the <|POINT|> car", "points": [{"label": L, "points": [...]}]

x and y are pixels unless "scale": [100, 100] says what they are counted in. A point of several images has an "image"
from 1 in place of a time. `about` is what the style asks about: an object's name, a time or a span. `then` nests
messages: what follows a message sees it and everything above it, no sibling.
"""

import dataclasses
from collections.abc import Mapping

from molmo2_jax.data.annotations import (
    POINT_MARK,
    Answer,
    AnyOf,
    Choice,
    InlinePoints,
    Message,
    Points,
    Text,
    Tracks,
)
from molmo2_jax.data.complaints import Complaints, is_number, is_positive
from molmo2_jax.data.media import VideoMedium
from molmo2_jax.data.styles import STYLES
from molmo2_jax.text.points import Point
from molmo2_jax.text.tracks import TrackFrame


@dataclasses.dataclass(frozen=True)
class Scene:
    """What annotations are held against: sizes of the media, and the clip of a video in its own seconds."""

    kind: str  # "video", "image", "images" or "text"
    sizes: tuple[tuple[int, int], ...]
    start: float
    end: float

    @classmethod
    def of(cls, media: tuple) -> "Scene":
        """The scene of a record's media."""
        if not media:
            return cls("text", (), 0.0, 0.0)
        if isinstance(media[0], VideoMedium):
            (video,) = media
            return cls("video", (video.size,), video.start, video.end)
        return cls("image" if len(media) == 1 else "images", tuple(image.size for image in media), 0.0, 0.0)


def read_messages(raw: object, what: str, scene: Scene, complaints: Complaints) -> tuple[Message | AnyOf, ...]:
    """Messages and, below each, what follows it. `what` is the JSON path, for complaints: "messages[1].then"."""
    if not isinstance(raw, list) or not raw:
        complaints(f"{what} is empty or not a list")
        return ()
    found = []
    for index, entry in enumerate(raw):
        here = f"{what}[{index}]"
        if isinstance(entry, dict) and "any" in entry:
            if complaints.keys(entry, here, {"any"}, set()):
                choices = read_messages(entry["any"], f"{here}.any", scene, complaints)
                if any(isinstance(choice, AnyOf) for choice in choices):
                    complaints(f"{here}.any chooses among choices")
                found.append(AnyOf(choices))
        else:
            found.append(_message(entry, here, scene, complaints))
    return tuple(found)


def _message(raw: object, here: str, scene: Scene, complaints: Complaints) -> Message | None:
    """One message, or None after complaining."""
    choice = isinstance(raw, dict) and "options" in raw
    required = {"style", "options", "correct"} if choice else {"style", "answer"}
    optional = {"labelled"} if choice else {"explanation", "points"}
    if not complaints.keys(raw, here, required, optional | {"user", "question", "about", "weight", "then"}):
        return None
    style = complaints.text(raw, "style", here)
    if style is not None and style not in STYLES:
        complaints(f"{here}.style {style!r} is unknown (known: {', '.join(sorted(STYLES))})")
    if "user" in raw and "question" in raw:
        complaints(f"{here} has both 'user' and 'question'")
    weight = raw.get("weight", 1.0)
    if not is_positive(weight):
        complaints(f"{here}.weight is not a number above 0: {weight!r}")
    then = read_messages(raw["then"], f"{here}.then", scene, complaints) if "then" in raw else ()
    return Message(
        style=style,
        user=complaints.text(raw, "user", here),
        question=complaints.text(raw, "question", here),
        about=_about(raw["about"], f"{here}.about", scene, complaints) if "about" in raw else None,
        answer=_choice(raw, here, complaints) if choice else _answer(raw, here, scene, complaints),
        weight=weight,
        then=then,
    )


def _about(raw: object, what: str, scene: Scene, complaints: Complaints):
    """A name, or a time or a span in the clip's own time."""
    if isinstance(raw, str) and raw.strip():
        return raw
    times = [raw] if is_number(raw) else complaints.numbers(raw, what, "start end")
    if times is None:
        return None
    if scene.kind != "video":
        complaints(f"{what} is a time, but the record has no video")
    elif not scene.start <= times[0] <= times[-1] <= scene.end:
        complaints(f"{what} {raw} is outside the clip [{scene.start}, {scene.end}]", "bad_time")
    own = tuple(float(time) - scene.start for time in times)
    return own[0] if len(own) == 1 else own


def _choice(raw: dict, here: str, complaints: Complaints) -> Choice | None:
    options, correct = raw["options"], raw["correct"]
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        complaints(f"{here}.options is not a list of texts")
        return None
    correct = correct if isinstance(correct, list) else [correct]
    if not correct or any(type(place) is not int or not 0 <= place < len(options) for place in correct):
        complaints(f"{here}.correct {raw['correct']!r} names no option of {len(options)}", "bad_options")
    doubles = sorted({option for option in options if options.count(option) > 1})
    if doubles:
        complaints(f"{here}.options has {doubles[0]!r} twice", "bad_options")
    labelled = raw.get("labelled", True)
    if not isinstance(labelled, bool):
        complaints(f"{here}.labelled is true or false, not {labelled!r}")
    return Choice(tuple(options), tuple(correct), labelled)


def _answer(raw: dict, here: str, scene: Scene, complaints: Complaints) -> Answer | None:
    answer, what = raw["answer"], f"{here}.answer"
    if "explanation" in raw and ("points" in raw or isinstance(answer, dict)):
        complaints(f"{here} has an explanation, but no answer in words alone")
    if "points" in raw:
        return _inline(raw, here, scene, complaints)
    if isinstance(answer, dict) and "tracks" in answer:
        return _tracks(answer, what, scene, complaints)
    if isinstance(answer, dict):
        style = STYLES.get(str(raw["style"]))
        if style is not None and style.points is None:
            complaints(f"{what} points, but style {raw['style']!r} is answered in words")
        return _points(answer, what, scene, complaints)
    texts = answer if isinstance(answer, list) else [answer]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        complaints(f"{here}: 'answer' is empty or not a string")
        return None
    return Text(tuple(texts), complaints.text(raw, "explanation", here))


def _inline(raw: dict, here: str, scene: Scene, complaints: Complaints) -> InlinePoints | None:
    text = complaints.text(raw, "answer", here)
    if not isinstance(raw["points"], list):
        complaints(f"{here}.points is not a list")
        return None
    found = tuple(_points(one, f"{here}.points[{i}]", scene, complaints) for i, one in enumerate(raw["points"]))
    if text is not None and text.count(POINT_MARK) != len(found):
        complaints(f"{here}: {text.count(POINT_MARK)} {POINT_MARK} in the answer, {len(found)} points")
    return InlinePoints(text, found)


def _points(raw: dict, what: str, scene: Scene, complaints: Complaints) -> Points | None:
    """A points answer; no points at all is an honest answer ("There are none.")."""
    if not complaints.keys(raw, what, {"label", "points"}, {"alt", "scale", "unanswerable"}):
        return None
    if scene.kind == "text":
        complaints(f"{what} points, but the record has neither video nor image")
        return None
    label, alt = complaints.text(raw, "label", what), complaints.text(raw, "alt", what)
    unanswerable = raw.get("unanswerable")
    if not isinstance(unanswerable, str | None):
        complaints(f"{what}.unanswerable is not a string: {unanswerable!r}")
    if not isinstance(raw["points"], list):
        complaints(f"{what}.points is not a list")
        return None
    key = {"video": {"time"}, "image": set(), "images": {"image"}}[scene.kind]
    points = []
    for index, entry in enumerate(raw["points"]):
        here = f"{what}.points[{index}]"
        if not complaints.keys(entry, here, {"x", "y"} | key, set()):
            continue
        bad = sorted(name for name, value in entry.items() if not is_number(value))
        if bad:
            complaints(f"{here}.{bad[0]} is not a finite number: {entry[bad[0]]!r}")
            continue
        points.append(_point(entry, here, raw.get("scale"), scene, complaints))
    return Points(label, tuple(points), alt, unanswerable)


def _point(raw: Mapping, here: str, scale: object, scene: Scene, complaints: Complaints) -> Point | None:
    if scene.kind == "video":
        key = _time(raw["time"], here, scene, complaints)
        size = scene.sizes[0]
    else:
        key = raw.get("image", 1)
        if type(key) is not int or not 1 <= key <= len(scene.sizes):
            complaints(f"{here}.image {key!r} is none of {len(scene.sizes)} images")
            return None
        size = scene.sizes[key - 1]
    x, y = _place(raw["x"], raw["y"], here, scale, size, complaints)
    return Point(key, x, y)


def _tracks(raw: dict, what: str, scene: Scene, complaints: Complaints) -> Tracks | None:
    if not complaints.keys(raw, what, {"label", "tracks", "fps"}, {"scale"}):
        return None
    label, fps = complaints.text(raw, "label", what), raw["fps"]
    if type(fps) is not int or not is_positive(fps):
        complaints(f"{what}.fps is a whole number of frames a second, not {fps!r}")
    if scene.kind != "video":
        complaints(f"{what} tracks, but the record has no video")
        return None
    if not isinstance(raw["tracks"], list):
        complaints(f"{what}.tracks is not a list")
        return None
    frames = []
    for index, entry in enumerate(raw["tracks"]):
        here = f"{what}.tracks[{index}]"
        if not complaints.keys(entry, here, {"time", "points"}, set()):
            continue
        if not is_number(entry["time"]) or not isinstance(entry["points"], dict):
            complaints(f"{here} is a time and an object of points")
            continue
        points = {}
        for name, place in entry["points"].items():
            xy = complaints.numbers(place, f"{here}.points[{name!r}]", "x y")
            if xy is not None:
                points[name] = _place(*xy, f"{here}.points[{name!r}]", raw.get("scale"), scene.sizes[0], complaints)
        frames.append(TrackFrame(_time(entry["time"], here, scene, complaints), points))
    times = [frame.time for frame in frames]
    if len(set(times)) < len(times):
        complaints(f"{what}.tracks has a time twice", "bad_time")
    return Tracks(label, tuple(sorted(frames, key=lambda frame: frame.time)), fps)


def _time(time: float, here: str, scene: Scene, complaints: Complaints) -> float:
    """Seconds of the video -> seconds of the clip."""
    if not scene.start <= time <= scene.end:
        complaints(f"{here}.time {time} s is outside the clip [{scene.start}, {scene.end}]", "bad_time")
    return float(time - scene.start)


def _place(x: float, y: float, here: str, scale: object, size: tuple, complaints: Complaints) -> tuple[float, float]:
    """Fractions of the frame; `scale` is what it measures in units of x and y, `size` in pixels."""
    if scale is not None:
        scale = complaints.numbers(scale, f"{here}: scale", "width height")
        if scale is not None and min(scale) <= 0:
            complaints(f"{here}: scale {list(scale)} is not above 0")
        elif scale is not None:
            size = scale
    if not (0 <= x <= size[0] and 0 <= y <= size[1]):
        complaints(f"{here} ({x}, {y}) is outside the {size[0]:g}x{size[1]:g} frame", "outside_frame")
    return x / size[0], y / size[1]
