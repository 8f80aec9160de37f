"""Records as JSON: one example per line, its media by name. Reading a record reports everything that is wrong with it.

A line of a JSON-lines file, wrapped for reading:

    {"id": "street/car", "video": "bikes.mp4", "clip": [3.04, 7.44],
     "messages": [
      {"style": "video_point", "user": "Point to the black car.",
       "answer": {"label": "black car", "points": [{"time": 5.54, "x": 120, "y": 144}]}},
      {"style": "video_short_answer", "question": "How many riders?", "answer": "Two.",
       "then": [{"style": "user_qa", "user": "Who leads?", "answer": "The one in red."}]}]}

`video`, `image` or `images` name media below the records' folder; a record with none of them is text only. A medium is
its name, or an object that also states its size and duration, so that the file need not be opened for them:

    {"at": "media-00000.array_record#17", "width": 640, "height": 272, "duration": 10.0}

`clip` and times are seconds of the video as a player shows them; the example's own time starts at 0 where the clip
starts. With "times": "clip", the times of messages and subtitles count from the clip's start instead (the default is
"video"): records/write.py writes them so, because they are then read back exactly. `frame_rates` are the sampling rates
(1/s) that hit the annotated times. `subtitles` are [start, end, text] lines, or a text to be shown as it is.
records/read_messages.py reads the messages.
"""

import dataclasses
import json
import re

from data_pipelines.errors import ExampleError
from data_pipelines.media.location import Location
from data_pipelines.media.medium import ImageMedium, VideoMedium, open_image, open_video, video_medium
from data_pipelines.records.annotations import AnyOf, Message
from data_pipelines.records.problems import Problems, is_positive
from data_pipelines.records.read_messages import Scene, read_messages

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # JSON's escape of one half of a character above U+FFFF

Subtitle = tuple[float, float, str]  # start, end (seconds since the clip's start), text
Subtitles = tuple[Subtitle, ...] | str | None  # a text is shown as it is


@dataclasses.dataclass(frozen=True)
class Record:
    """One annotated example. `where` names it in errors: "FILE:LINE: record 'ID'"."""

    id: str
    where: str
    media: tuple[VideoMedium | ImageMedium, ...]
    subtitles: Subtitles
    messages: tuple[Message | AnyOf, ...]


def read_record(line: bytes, root: str, where: str) -> Record:
    """The record of one line of JSON; `root` is the folder or URL its media are below, `where` names the line.

    Media whose size and duration the record does not state are probed.

    Raises:
      RecordError: with all problems of the line: unknown, missing or repeated keys, media that are missing, unreadable
        or outside `root`, a clip outside its video, annotations outside clip or frame, empty texts, unknown styles.
    """
    problems = Problems(where)
    raw = _parse_object(line, problems)
    problems.raise_any()
    problems.where = where = f"{where}: record {raw.get('id')!r}"
    optional = {"video", "image", "images", "clip", "times", "frame_rates", "subtitles"}
    problems.has_keys(raw, "the record", {"id", "messages"}, optional)
    problems.raise_any()
    identity = problems.text(raw, "id", "the record")
    media = _read_media(raw, root, problems)
    problems.raise_any()  # annotations can be checked against media only
    scene = Scene.of(media, raw.get("times", "video"))
    subtitles = _read_subtitles(raw["subtitles"], media[0], scene, problems) if "subtitles" in raw else None
    try:
        messages = read_messages(raw["messages"], "messages", scene, problems)
    except RecursionError:
        problems.add("messages nested too deeply to read")
    problems.raise_any()
    return Record(identity, where, media, subtitles, messages)


def _parse_object(line: bytes, problems: Problems) -> dict | None:
    """The JSON object of one line; None, with a problem, where it is not one."""
    try:
        raw = json.loads(line, object_pairs_hook=_unique_keys)
        if _SURROGATE.search(line):
            json.dumps(raw, ensure_ascii=False).encode()  # raises for a half without its other half
    except RecursionError:  # before ValueError's siblings: json reports depth this way
        problems.add("messages nested too deeply to parse")
        return None
    except ValueError as error:  # broken JSON, broken UTF-8, half a character or a repeated key
        problems.add(f"not a JSON object: {error}")
        return None
    if not isinstance(raw, dict):
        problems.add(f"not a JSON object: {type(raw).__name__}")
        return None
    return raw


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    """The pairs of a JSON object as a dict. Raises ValueError where a key is repeated."""
    keys = [key for key, _ in pairs]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"key {repeated[0]!r} appears twice")
    return dict(pairs)


def _read_media(raw: dict, root: str, problems: Problems) -> tuple:
    kinds = [kind for kind in ("video", "image", "images") if kind in raw]
    if len(kinds) > 1:
        problems.add(f"has both {kinds[0]!r} and {kinds[1]!r}")
        return ()
    for key in ("clip", "times", "frame_rates", "subtitles"):
        if key in raw and kinds != ["video"]:
            problems.add(f"has {key!r} but no 'video'")
    if raw.get("times", "video") not in ("video", "clip"):
        problems.add(f"times must be 'video' or 'clip', whose start they count from, not {raw['times']!r}")
    if not kinds:
        return ()
    named = raw["images"] if kinds == ["images"] else [raw[kinds[0]]]
    if not isinstance(named, list) or not named:
        problems.add("images is empty or not a list")
        return ()
    if kinds == ["video"]:
        return tuple(_read_video(medium, raw, root, problems) for medium in named)
    return tuple(_read_image(medium, root, problems) for medium in named)


def _medium_facts(
    medium: object, what: str, names: tuple[str, ...], problems: Problems
) -> tuple[str, list[float]] | None:
    """(name, values of `names`) of a medium, no values where it is only named; None, with a problem, if it is wrong."""
    if isinstance(medium, str):
        return medium, []
    if not problems.has_keys(medium, what, {"at", *names}, set()):
        return None
    bad = [name for name in names if not is_positive(medium[name])]
    for name in bad:
        problems.add(f"{what}.{name} must be a number above 0, not {medium[name]!r}")
    parts = [name for name in names if name != "duration" and name not in bad and medium[name] != int(medium[name])]
    for name in parts:
        problems.add(f"{what}.{name} must be a whole number of pixels, not {medium[name]!r}")
    at = problems.text(medium, "at", what)
    return None if bad or parts or at is None else (at, [medium[name] for name in names])


def _read_image(medium: object, root: str, problems: Problems) -> ImageMedium | None:
    found = _medium_facts(medium, "image", ("width", "height"), problems)
    if found is None:
        return None
    name, size = found
    try:
        location = Location(root, name)
        return ImageMedium(location, (int(size[0]), int(size[1]))) if size else open_image(location)
    except ExampleError as error:
        problems.add(str(error), error.reason)  # the message names the file
        return None


def _read_video(medium: object, raw: dict, root: str, problems: Problems) -> VideoMedium | None:
    found = _medium_facts(medium, "video", ("width", "height", "duration"), problems)
    clip = None
    if "clip" in raw:
        clip = problems.numbers(raw["clip"], "clip", "start end")
    rates = raw.get("frame_rates")
    if "frame_rates" in raw and not (isinstance(rates, list) and rates and all(is_positive(rate) for rate in rates)):
        problems.add(f"frame_rates must be a list of numbers above 0, not {rates!r}")
        return None
    if found is None or ("clip" in raw and clip is None):
        return None
    name, facts = found
    try:
        location = Location(root, name)
        if facts:
            video = video_medium(location, (int(facts[0]), int(facts[1])), facts[2], clip, None)
        else:
            video = open_video(location, clip)
    except ExampleError as error:
        problems.add(str(error), error.reason)  # the message names the file
        return None
    return dataclasses.replace(video, frame_rates=None if rates is None else tuple(sorted(rates)))


def _read_subtitles(
    raw: object, video: VideoMedium, scene: Scene, problems: Problems
) -> tuple[Subtitle, ...] | str | None:
    """The lines within the clip, in the clip's own time; a text stays as it is."""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list):
        problems.add("subtitles must be a text or a list of [start, end, text]")
        return None
    lines = []
    for index, entry in enumerate(raw):
        if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], str)):
            problems.add(f"subtitles[{index}] must be [start, end, text], not {entry!r}")
            continue
        span = problems.numbers(entry[:2], f"subtitles[{index}]", "start end")
        if span is None:
            continue
        start, end = span
        if not scene.start - video.start <= start <= end:  # the left side is the start of the video
            problems.add(
                f"subtitles[{index}] is from {start} to {end} s: it begins before the video or ends before it begins",
                "bad_time",
            )
        elif start <= scene.end and end >= scene.start:
            lines.append((start - scene.start, end - scene.start, entry[2]))
    return tuple(sorted(lines))
