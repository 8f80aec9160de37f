"""Light records: one example a line of JSON, its medium by path. What can be wrong is found here, before training.

One line, wrapped for reading:

    {"id": "street/car", "video": "bikes.mp4", "clip": [3.04, 7.44],
     "messages": [
      {"style": "video_point", "user": "Point to the black car.",
       "answer": {"label": "black car", "points": [{"time": 5.54, "x": 120, "y": 144}]}},
      {"style": "video_short_answer", "user": "How many riders?", "answer": "Two.",
       "then": [{"style": "user_qa", "user": "Who leads?", "answer": "The one in red."}]}]}

`video` or `image` is a path below the records file's folder; a record with neither is text alone. `clip` and `time` are
seconds of the video as a player shows them; the example's own time starts at 0 where the clip starts. `x` and `y` are
pixels of the frame, y down. `then` nests messages: what follows a message sees it and everything above it, no sibling.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from molmo2_jax.data import image as image_lib
from molmo2_jax.data import video as video_lib
from molmo2_jax.data.failure import MediaError
from molmo2_jax.data.styles import STYLES
from molmo2_jax.text.points import write_points


class RecordError(ValueError):
    """Records no one can train on. `problems` has them all, a line each:

    a.jsonl:3: record 'street/car': bikes.mp4: no such file
    """

    def __init__(self, problems: Sequence[str]):
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


@dataclasses.dataclass(frozen=True)
class VideoMedium:
    """A probed video and the part of it [start, end] (seconds) that the example shows."""

    path: Path
    info: video_lib.VideoInfo
    start: float
    end: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame in pixels."""
        return self.info.width, self.info.height


@dataclasses.dataclass(frozen=True)
class ImageMedium:
    """A probed image; `size` is width and height in pixels, upright."""

    path: Path
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class PixelPoint:
    """A point at pixel (x, y) of the frame at `time` seconds of the video; `time` is None on an image."""

    time: float | None
    x: float
    y: float


@dataclasses.dataclass(frozen=True)
class PointsAnswer:
    """An answer that points: what at (`label`), where, and the tag's alternative text if it differs."""

    label: str
    points: tuple[PixelPoint, ...]
    alt: str | None


@dataclasses.dataclass(frozen=True)
class Message:
    """A question, its answer, and the messages that may follow it, each in a branch of its own."""

    style: str
    user: str
    answer: str | PointsAnswer
    then: tuple["Message", ...]


@dataclasses.dataclass(frozen=True)
class Record:
    """One example as annotated. `where` is "FILE:LINE: record 'ID'", how errors name it."""

    id: str
    where: str
    media: tuple[VideoMedium | ImageMedium, ...]
    messages: tuple[Message, ...]


Complain = Callable[[str], None]


def load_records(path: str | Path) -> list[Record]:
    """The records of a JSON-lines file, every medium probed once.

    Raises RecordError with all problems of the file: unknown, missing or double keys, double ids, media that are
    missing, unreadable or outside the file's folder, a clip outside its video, annotations outside clip or frame, empty
    texts, unknown styles.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError([f"{path}: no such records file"])
    problems: list[str] = []
    records: list[Record] = []
    first_line: dict[str, int] = {}
    probed: dict[Path, object] = {}
    lines = path.read_bytes().split(b"\n")
    if lines[-1] == b"":  # the newline that ends the last record
        lines.pop()
    if not lines:
        raise RecordError([f"{path}: holds no records"])
    for number, line in enumerate(lines, start=1):
        before = len(problems)
        raw = _parse_line(line, _complainer(problems, f"{path}:{number}"))
        if raw is None:
            continue
        where = f"{path}:{number}: record {raw.get('id')!r}"
        complain = _complainer(problems, where)
        identity = _text(raw, "id", "the record", complain)
        if identity in first_line:
            complain(f"the id is taken by line {first_line[identity]}")
        elif identity is not None:
            first_line[identity] = number
        media, messages = _read_record(raw, path.parent, probed, complain)
        if len(problems) == before:
            records.append(Record(identity, where, media, messages))
    if problems:
        raise RecordError(problems)
    return records


def open_video(path: Path, clip: tuple[float, float] | None) -> VideoMedium:
    """A video to be read whole or in part. Raises MediaError (unreadable) or ValueError (clip outside the video)."""
    return _cut(path, video_lib.probe(path), clip)


def open_image(path: Path) -> ImageMedium:
    """An image; it is decoded once, which is the only way to know that it is whole. Raises MediaError."""
    height, width, _ = image_lib.load_image(path).shape
    return ImageMedium(path, (width, height))


def _cut(path: Path, info: video_lib.VideoInfo, clip: tuple[float, float] | None) -> VideoMedium:
    start, end = (0.0, info.duration) if clip is None else clip
    if not 0 <= start < end <= info.duration:
        raise ValueError(f"clip [{start}, {end}] is empty or not inside the video, which lasts {info.duration:g} s")
    return VideoMedium(path, info, start, end)


def _complainer(problems: list[str], where: str) -> Complain:
    return lambda text: problems.append(f"{where}: {text}")


def _parse_line(line: bytes, complain: Complain) -> dict | None:
    """The JSON object of one line, or None after complaining."""
    try:
        raw = json.loads(line, object_pairs_hook=_no_double_keys)
    except RecursionError:  # before ValueError's siblings: json reports depth this way
        complain("messages nested too deeply to parse")
        return None
    except ValueError as error:  # broken JSON, broken UTF-8 or a double key
        complain(f"not a JSON object: {error}")
        return None
    if not isinstance(raw, dict):
        complain(f"not a JSON object: {type(raw).__name__}")
        return None
    return raw


def _no_double_keys(pairs: list[tuple[str, object]]) -> dict:
    keys = [key for key, _ in pairs]
    doubles = sorted({key for key in keys if keys.count(key) > 1})
    if doubles:
        raise ValueError(f"key {doubles[0]!r} appears twice")
    return dict(pairs)


def _read_record(raw: dict, folder: Path, probed: dict, complain: Complain) -> tuple[tuple, tuple[Message, ...]]:
    """Media and messages of one line; whatever is wrong went to `complain`."""
    if not _keys(raw, "the record", {"id", "messages"}, {"video", "image", "clip"}, complain):
        return (), ()
    kinds = [kind for kind in ("video", "image") if kind in raw]
    if len(kinds) == 2:
        complain("has both 'video' and 'image'")
        return (), ()
    if "clip" in raw and kinds != ["video"]:
        complain("has a 'clip' but no 'video'")
    medium = None
    if kinds:
        medium = _read_medium(raw, kinds[0], folder, probed, complain)
    try:
        messages = _read_messages(raw["messages"], "messages", kinds[0] if kinds else None, medium, complain)
    except RecursionError:
        complain("messages nested too deeply to read")
        messages = ()
    return (() if medium is None else (medium,)), messages


def _read_medium(raw: dict, kind: str, folder: Path, probed: dict, complain: Complain):
    """The probed medium, or None after complaining. `probed` remembers media that several records share."""
    name = _text(raw, kind, "the record", complain)
    if name is None:
        return None
    path = folder / name
    # Symbolic links are followed first: what is opened in the end must lie below the records, not only be written so.
    if "\0" in name or Path(name).is_absolute() or not _inside(path, folder):
        complain(f"{name}: media paths are relative and stay inside {folder}")
        return None
    if not path.is_file():
        complain(f"{name}: no such file")
        return None
    if (kind, path) not in probed:
        try:
            probed[kind, path] = video_lib.probe(path) if kind == "video" else open_image(path)
        except MediaError as error:
            probed[kind, path] = error
    found = probed[kind, path]
    if isinstance(found, MediaError):
        complain(str(found))  # it names the file
        return None
    if kind == "image":
        return found
    clip = None
    if "clip" in raw:
        clip = _read_clip(raw["clip"], complain)
        if clip is None:
            return None
    try:
        return _cut(path, found, clip)
    except ValueError as error:
        complain(f"{name}: {error}")
        return None


def _inside(path: Path, folder: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _read_clip(raw: object, complain: Complain) -> tuple[float, float] | None:
    if not isinstance(raw, list) or len(raw) != 2 or not all(_is_number(v) for v in raw):
        complain(f"clip is [start, end] in seconds, not {raw!r}")
        return None
    return float(raw[0]), float(raw[1])


def _read_messages(raw: object, what: str, kind: str | None, medium, complain: Complain) -> tuple[Message, ...]:
    """Messages and, below each, what follows it. `what` is the JSON path, for complaints: "messages[1].then"."""
    if not isinstance(raw, list) or not raw:
        complain(f"{what} is empty or not a list")
        return ()
    found = []
    for index, entry in enumerate(raw):
        here = f"{what}[{index}]"
        if not _keys(entry, here, {"style", "user", "answer"}, {"then"}, complain):
            continue
        style = _text(entry, "style", here, complain)
        if style is not None and style not in STYLES:
            complain(f"{here}.style {style!r} is unknown (known: {', '.join(sorted(STYLES))})")
            style = None
        user = _text(entry, "user", here, complain)
        if isinstance(entry["answer"], dict):
            answer = _read_points(entry["answer"], f"{here}.answer", kind, medium, complain)
            if style is not None and STYLES[style].points is None:
                complain(f"{here}.answer points, but style {style!r} is answered in words")
        else:
            answer = _text(entry, "answer", here, complain)
        then = ()
        if "then" in entry:
            then = _read_messages(entry["then"], f"{here}.then", kind, medium, complain)
        found.append(Message(style, user, answer, then))
    return tuple(found)


def _read_points(raw: dict, what: str, kind: str | None, medium, complain: Complain) -> PointsAnswer | None:
    """A points answer; no points at all is an honest answer ("There are none.")."""
    if not _keys(raw, what, {"label", "points"}, {"alt"}, complain):
        return None
    if kind is None:
        complain(f"{what} points, but the record has neither video nor image")
        return None
    label = _text(raw, "label", what, complain)
    alt = _text(raw, "alt", what, complain) if "alt" in raw else None
    if not isinstance(raw["points"], list):
        complain(f"{what}.points is not a list")
        return None
    keys = {"time", "x", "y"} if kind == "video" else {"x", "y"}
    points = []
    for index, entry in enumerate(raw["points"]):
        here = f"{what}.points[{index}]"
        if not _keys(entry, here, keys, set(), complain):
            continue
        bad = sorted(key for key in keys if not _is_number(entry[key]))
        if bad:
            complain(f"{here}.{bad[0]} is not a finite number: {entry[bad[0]]!r}")
            continue
        point = PixelPoint(entry.get("time"), entry["x"], entry["y"])
        if medium is not None:
            _check_point(point, here, medium, complain)
        points.append(point)
    if label is not None:
        try:
            write_points(label, [], version="html-v2", alt=alt)  # refuses texts that could not be read back
        except ValueError as error:
            complain(f"{what}: {error}")
    return PointsAnswer(label, tuple(points), alt)


def _check_point(point: PixelPoint, here: str, medium: VideoMedium | ImageMedium, complain: Complain) -> None:
    if isinstance(medium, VideoMedium) and not medium.start <= point.time <= medium.end:
        complain(f"{medium.path.name}: {here}.time {point.time} s is outside the clip [{medium.start}, {medium.end}]")
    width, height = medium.size
    if not (0 <= point.x <= width and 0 <= point.y <= height):
        complain(f"{medium.path.name}: {here} ({point.x}, {point.y}) is outside the {width}x{height} frame")


def _keys(raw: object, what: str, required: set[str], optional: set[str], complain: Complain) -> bool:
    """Whether `raw` is an object with all required and no unknown keys; complains of each that is off."""
    if not isinstance(raw, dict):
        complain(f"{what} is not an object")
        return False
    missing, unknown = sorted(required - raw.keys()), sorted(raw.keys() - required - optional)
    for key in missing:
        complain(f"{what} has no {key!r}")
    for key in unknown:
        complain(f"{what} has an unknown key {key!r} (known: {', '.join(sorted(required | optional))})")
    return not missing and not unknown


def _text(raw: dict, key: str, what: str, complain: Complain) -> str | None:
    """The non-blank string at `key`, or None after complaining."""
    value = raw.get(key)
    if isinstance(value, str) and value.strip():
        return value
    if key in raw:  # a missing key was named by _keys
        complain(f"{what}: {key!r} is empty or not a string")
    return None


def _is_number(value: object) -> bool:
    # The bound keeps out NaN and infinity, which json reads, and integers too long for a float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
