"""Messages of a record: from JSON to annotations, in the units of records/annotations.py.

    {"style": S, "question": Q, ANSWER}          templates may frame Q; with "user" instead, the text is used unchanged
    {"any": [MESSAGE, ...]}                      one of them, drawn each time

ANSWER is one of

    "answer": "Two."                             or of several people: ["two", "two", "three"]; "explanation": steps
    "options": ["a bus", "a car"], "correct": 1  or [0, 1]; "labelled": false where options have no letters
    "answer": {"label": L, "points": [{"time": 5.5, "x": 12, "y": 144}, ...]}
    "answer": {"label": L, "tracks": [{"time": 5.5, "points": {"7": [12, 144]}}, ...], "fps": 2}
    "answer": "the <|POINT|> car", "points": [{"label": L, "points": [...]}]

x and y are pixels; with "scale": [100, 100] they are units of which the frame has 100 x 100. A point of several images
has an "image", counted from 1, in place of a time. `about` is what the style asks about: an object's name, a time or a
span. `then` nests messages: a follow-up sees the message it follows and everything above that, but no sibling.
"""

import dataclasses
from collections.abc import Mapping

from data_pipelines.media.medium import VideoMedium
from data_pipelines.records.annotations import (
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
from data_pipelines.records.problems import Problems, is_number, is_positive
from data_pipelines.records.styles import STYLES
from data_pipelines.text.points import Point
from data_pipelines.text.tracks import TrackFrame


@dataclasses.dataclass(frozen=True)
class Scene:
    """What annotations are checked against: sizes of the media; a video's clip, in seconds counted as its times are."""

    kind: str  # "video", "image", "images" or "text"
    sizes: tuple[tuple[int, int], ...]
    start: float
    end: float

    @classmethod
    def of(cls, media: tuple, times: str) -> "Scene":
        """The scene of a record's media. `times`: what its times count from, the start of the "video" or the "clip"."""
        if not media:
            return cls("text", (), 0.0, 0.0)
        if isinstance(media[0], VideoMedium):
            (video,) = media
            start, end = (0.0, video.end - video.start) if times == "clip" else (video.start, video.end)
            return cls("video", (video.size,), start, end)
        return cls("image" if len(media) == 1 else "images", tuple(image.size for image in media), 0.0, 0.0)


def read_messages(raw: object, what: str, scene: Scene, problems: Problems) -> tuple[Message | AnyOf, ...]:
    """Messages and, below each, its follow-ups. `what` is the JSON path that problems name: "messages[1].then"."""
    if not isinstance(raw, list) or not raw:
        problems.add(f"{what} is empty or not a list")
        return ()
    found = []
    for index, entry in enumerate(raw):
        here = f"{what}[{index}]"
        if isinstance(entry, dict) and "any" in entry:
            if problems.has_keys(entry, here, {"any"}, set()):
                choices = read_messages(entry["any"], f"{here}.any", scene, problems)
                if any(isinstance(choice, AnyOf) for choice in choices):
                    problems.add(f"{here}.any contains another 'any': put all choices in one list")
                found.append(AnyOf(choices))
        else:
            found.append(_read_message(entry, here, scene, problems))
    return tuple(found)


def _read_message(raw: object, here: str, scene: Scene, problems: Problems) -> Message | None:
    """One message; None, with a problem, where its keys are wrong."""
    choice = isinstance(raw, dict) and "options" in raw
    required = {"style", "options", "correct"} if choice else {"style", "answer"}
    optional = {"labelled"} if choice else {"explanation", "points"}
    if not problems.has_keys(raw, here, required, optional | {"user", "question", "about", "weight", "then"}):
        return None
    style = problems.text(raw, "style", here)
    if style is not None and style not in STYLES:
        problems.add(f"{here}.style {style!r} is unknown (known: {', '.join(sorted(STYLES))})")
    if "user" in raw and "question" in raw:
        problems.add(f"{here} has both 'user' and 'question'")
    weight = raw.get("weight", 1.0)
    if not is_positive(weight):
        problems.add(f"{here}.weight must be a number above 0, not {weight!r}")
    then = read_messages(raw["then"], f"{here}.then", scene, problems) if "then" in raw else ()
    return Message(
        style=style,
        user=problems.text(raw, "user", here),
        question=problems.text(raw, "question", here),
        about=_read_about(raw["about"], f"{here}.about", scene, problems) if "about" in raw else None,
        answer=_read_choice(raw, here, problems) if choice else _read_answer(raw, here, scene, problems),
        weight=weight,
        then=then,
    )


def _read_about(raw: object, what: str, scene: Scene, problems: Problems) -> str | float | tuple[float, float] | None:
    """A name, or a time or a span in the clip's own time."""
    if isinstance(raw, str) and raw.strip():
        return raw
    times = [raw] if is_number(raw) else problems.numbers(raw, what, "start end")
    if times is None:
        return None
    if scene.kind != "video":
        problems.add(f"{what} is a time, but the record has no video")
    elif not scene.start <= times[0] <= times[-1] <= scene.end:
        problems.add(f"{what} {raw} is outside the clip [{scene.start}, {scene.end}]", "bad_time")
    own = tuple(float(time) - scene.start for time in times)
    return own[0] if len(own) == 1 else own


def _read_choice(raw: dict, here: str, problems: Problems) -> Choice | None:
    options, correct = raw["options"], raw["correct"]
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        problems.add(f"{here}.options is not a list of texts")
        return None
    correct = correct if isinstance(correct, list) else [correct]
    if not correct or any(type(index) is not int or not 0 <= index < len(options) for index in correct):
        problems.add(f"{here}.correct {raw['correct']!r} names no option of {len(options)}", "bad_options")
    repeated = sorted({option for option in options if options.count(option) > 1})
    if repeated:
        problems.add(f"{here}.options has {repeated[0]!r} twice", "bad_options")
    labelled = raw.get("labelled", True)
    if not isinstance(labelled, bool):
        problems.add(f"{here}.labelled must be true or false, not {labelled!r}")
    return Choice(tuple(options), tuple(correct), labelled)


def _read_answer(raw: dict, here: str, scene: Scene, problems: Problems) -> Answer | None:
    answer, what = raw["answer"], f"{here}.answer"
    if "explanation" in raw and ("points" in raw or isinstance(answer, dict)):
        problems.add(f"{here} has an explanation, which only an answer in words may have")
    if "points" in raw:
        return _read_inline_points(raw, here, scene, problems)
    if isinstance(answer, dict) and "tracks" in answer:
        return _read_tracks(answer, what, scene, problems)
    if isinstance(answer, dict):
        style = STYLES.get(str(raw["style"]))
        if style is not None and style.points is None:
            problems.add(f"{what} has points, but style {raw['style']!r} is answered in words")
        return _read_points(answer, what, scene, problems)
    texts = answer if isinstance(answer, list) else [answer]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        problems.add(f"{here}: 'answer' is empty or not a string")
        return None
    return Text(tuple(texts), problems.text(raw, "explanation", here))


def _read_inline_points(raw: dict, here: str, scene: Scene, problems: Problems) -> InlinePoints | None:
    text = problems.text(raw, "answer", here)
    if not isinstance(raw["points"], list):
        problems.add(f"{here}.points is not a list")
        return None
    found = tuple(_read_points(one, f"{here}.points[{i}]", scene, problems) for i, one in enumerate(raw["points"]))
    if text is not None and text.count(POINT_MARK) != len(found):
        problems.add(f"{here}: {text.count(POINT_MARK)} {POINT_MARK} in the answer, {len(found)} points")
    return InlinePoints(text, found)


def _read_points(raw: dict, what: str, scene: Scene, problems: Problems) -> Points | None:
    """A points answer; it may have no points at all ("There are none.")."""
    if not problems.has_keys(raw, what, {"label", "points"}, {"alt", "scale", "unanswerable"}):
        return None
    if scene.kind == "text":
        problems.add(f"{what} has points, but the record has neither video nor image")
        return None
    label, alt = problems.text(raw, "label", what), problems.text(raw, "alt", what)
    unanswerable = raw.get("unanswerable")
    if not isinstance(unanswerable, str | None):
        problems.add(f"{what}.unanswerable must be a string, not {unanswerable!r}")
    if not isinstance(raw["points"], list):
        problems.add(f"{what}.points is not a list")
        return None
    key = {"video": {"time"}, "image": set(), "images": {"image"}}[scene.kind]
    points = []
    for index, entry in enumerate(raw["points"]):
        here = f"{what}.points[{index}]"
        if not problems.has_keys(entry, here, {"x", "y"} | key, set()):
            continue
        bad = sorted(name for name, value in entry.items() if not is_number(value))
        if bad:
            problems.add(f"{here}.{bad[0]} must be a finite number, not {entry[bad[0]]!r}")
            continue
        points.append(_read_point(entry, here, raw.get("scale"), scene, problems))
    return Points(label, tuple(points), alt, unanswerable)


def _read_point(raw: Mapping, here: str, scale: object, scene: Scene, problems: Problems) -> Point | None:
    if scene.kind == "video":
        key = _clip_time(raw["time"], here, scene, problems)
        size = scene.sizes[0]
    else:
        key = raw.get("image", 1)
        if type(key) is not int or not 1 <= key <= len(scene.sizes):
            problems.add(f"{here}.image {key!r} is not one of {len(scene.sizes)} images")
            return None
        size = scene.sizes[key - 1]
    x, y = _frame_fractions(raw["x"], raw["y"], here, scale, size, problems)
    return Point(key, x, y)


def _read_tracks(raw: dict, what: str, scene: Scene, problems: Problems) -> Tracks | None:
    if not problems.has_keys(raw, what, {"label", "tracks", "fps"}, {"scale"}):
        return None
    label, fps = problems.text(raw, "label", what), raw["fps"]
    if type(fps) is not int or not is_positive(fps):
        problems.add(f"{what}.fps must be a whole number of frames per second, not {fps!r}")
    if scene.kind != "video":
        problems.add(f"{what} has tracks, but the record has no video")
        return None
    if not isinstance(raw["tracks"], list):
        problems.add(f"{what}.tracks is not a list")
        return None
    frames = []
    for index, entry in enumerate(raw["tracks"]):
        here = f"{what}.tracks[{index}]"
        if not problems.has_keys(entry, here, {"time", "points"}, set()):
            continue
        if not is_number(entry["time"]) or not isinstance(entry["points"], dict):
            problems.add(f"{here} must have a time and an object of points")
            continue
        points = {}
        for name, pair in entry["points"].items():
            here_xy = f"{here}.points[{name!r}]"
            xy = problems.numbers(pair, here_xy, "x y")
            if xy is not None:
                points[name] = _frame_fractions(*xy, here_xy, raw.get("scale"), scene.sizes[0], problems)
        frames.append(TrackFrame(_clip_time(entry["time"], here, scene, problems), points))
    times = [frame.time for frame in frames]
    if len(set(times)) < len(times):
        problems.add(f"{what}.tracks has a time twice", "bad_time")
    return Tracks(label, tuple(sorted(frames, key=lambda frame: frame.time)), fps)


def _clip_time(time: float, here: str, scene: Scene, problems: Problems) -> float:
    """Seconds of the video -> seconds of the clip."""
    if not scene.start <= time <= scene.end:
        problems.add(f"{here}.time {time} s is outside the clip [{scene.start}, {scene.end}]", "bad_time")
    return float(time - scene.start)


def _frame_fractions(
    x: float, y: float, here: str, scale: object, size: tuple[float, float], problems: Problems
) -> tuple[float, float]:
    """x and y as fractions of the frame, which measures `scale` in their units, or `size` in pixels without a scale."""
    if scale is not None:
        scale = problems.numbers(scale, f"{here}: scale", "width height")
        if scale is not None and min(scale) <= 0:
            problems.add(f"{here}: scale must be above 0, not {list(scale)}")
        elif scale is not None:
            size = scale
    if not (0 <= x <= size[0] and 0 <= y <= size[1]):
        problems.add(f"{here} ({x}, {y}) is outside the {size[0]:g}x{size[1]:g} frame", "outside_frame")
    return x / size[0], y / size[1]
