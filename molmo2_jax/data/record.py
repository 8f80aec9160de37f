"""Light records: one example as a JSON object, its media by name. Reading one finds whatever is wrong with it.

A line of a JSON-lines file, wrapped for reading:

    {"id": "street/car", "video": "bikes.mp4", "clip": [3.04, 7.44],
     "messages": [
      {"style": "video_point", "user": "Point to the black car.",
       "answer": {"label": "black car", "points": [{"time": 5.54, "x": 120, "y": 144}]}},
      {"style": "video_short_answer", "question": "How many riders?", "answer": "Two.",
       "then": [{"style": "user_qa", "user": "Who leads?", "answer": "The one in red."}]}]}

`video`, `image` or `images` name media below the records' folder; a record with none of them is text alone. A medium is
its name, or an object with what is known of it, so that nobody has to look:

    {"at": "media-00000-of-00002.array_record#17", "width": 640, "height": 272, "duration": 10.0}

`clip` and times are seconds of the video as a player shows them; the example's own time starts at 0 where the clip
starts. `frame_rates` are the sampling rates that hit the annotated times. `subtitles` are [start, end, text] lines, or
a text to be shown as it is. What messages say is data/messages.py.
"""

import dataclasses
import json
import re

from molmo2_jax.data.annotations import AnyOf, Message
from molmo2_jax.data.complaints import Complaints, RecordError, is_positive
from molmo2_jax.data.failure import ExampleError
from molmo2_jax.data.media import ImageMedium, Location, VideoMedium, open_image, open_video, video_medium
from molmo2_jax.data.messages import Scene, read_messages

_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # JSON's escape of half a character of more than 16 bits

Subtitle = tuple[float, float, str]  # start, end (seconds since the clip's start), text

__all__ = ["Record", "RecordError", "read_record"]


@dataclasses.dataclass(frozen=True)
class Record:
    """One example as annotated. `where` is "FILE:LINE: record 'ID'", how errors name it."""

    id: str
    where: str
    media: tuple[VideoMedium | ImageMedium, ...]
    subtitles: tuple[Subtitle, ...] | str | None
    messages: tuple[Message | AnyOf, ...]


def read_record(line: bytes, root: str, where: str) -> Record:
    """The record of one line of JSON; `root` is the folder or URL its media are below, `where` names the line.

    Media whose facts the record does not state are probed. Raises RecordError with all problems of the line: unknown,
    missing or double keys, media that are missing, unreadable or outside `root`, a clip outside its video, annotations
    outside clip or frame, empty texts, unknown styles.
    """
    complaints = Complaints(where)
    raw = _parse(line, complaints)
    complaints.raise_any()
    complaints.where = where = f"{where}: record {raw.get('id')!r}"
    optional = {"video", "image", "images", "clip", "frame_rates", "subtitles"}
    complaints.keys(raw, "the record", {"id", "messages"}, optional)
    complaints.raise_any()
    identity = complaints.text(raw, "id", "the record")
    media = _media(raw, root, complaints)
    complaints.raise_any()  # without its media there is nothing to hold the annotations against
    subtitles = _subtitles(raw["subtitles"], media[0], complaints) if "subtitles" in raw else None
    try:
        messages = read_messages(raw["messages"], "messages", Scene.of(media), complaints)
    except RecursionError:
        complaints("messages nested too deeply to read")
    complaints.raise_any()
    return Record(identity, where, media, subtitles, messages)


def _parse(line: bytes, complaints: Complaints) -> dict | None:
    """The JSON object of one line, or None after complaining."""
    try:
        raw = json.loads(line, object_pairs_hook=_no_double_keys)
        if _HALF.search(line):
            json.dumps(raw, ensure_ascii=False).encode()  # refuses one that has no other half
    except RecursionError:  # before ValueError's siblings: json reports depth this way
        complaints("messages nested too deeply to parse")
        return None
    except ValueError as error:  # broken JSON, broken UTF-8, half a character or a double key
        complaints(f"not a JSON object: {error}")
        return None
    if not isinstance(raw, dict):
        complaints(f"not a JSON object: {type(raw).__name__}")
        return None
    return raw


def _no_double_keys(pairs: list[tuple[str, object]]) -> dict:
    keys = [key for key, _ in pairs]
    doubles = sorted({key for key in keys if keys.count(key) > 1})
    if doubles:
        raise ValueError(f"key {doubles[0]!r} appears twice")
    return dict(pairs)


def _media(raw: dict, root: str, complaints: Complaints) -> tuple:
    """The media of a record; what is wrong went to `complaints`."""
    kinds = [kind for kind in ("video", "image", "images") if kind in raw]
    if len(kinds) > 1:
        complaints(f"has both {kinds[0]!r} and {kinds[1]!r}")
        return ()
    for key in ("clip", "frame_rates", "subtitles"):
        if key in raw and kinds != ["video"]:
            complaints(f"has {key!r} but no 'video'")
    if not kinds:
        return ()
    named = raw["images"] if kinds == ["images"] else [raw[kinds[0]]]
    if not isinstance(named, list) or not named:
        complaints("images is empty or not a list")
        return ()
    read = _video if kinds == ["video"] else _image
    found = [read(one, raw, root, complaints) for one in named]
    return tuple(found)


def _facts(medium: object, what: str, names: tuple[str, ...], complaints: Complaints) -> tuple[str, list[float]] | None:
    """(name, the facts called `names`) of a medium, no facts where it is only named; None after complaining."""
    if isinstance(medium, str):
        return medium, []
    if not complaints.keys(medium, what, {"at", *names}, set()):
        return None
    bad = [name for name in names if not is_positive(medium[name])]
    for name in bad:
        complaints(f"{what}.{name} is not a number above 0: {medium[name]!r}")
    parts = [name for name in names if name != "duration" and name not in bad and medium[name] != int(medium[name])]
    for name in parts:
        complaints(f"{what}.{name} is a whole number of pixels, not {medium[name]!r}")
    at = complaints.text(medium, "at", what)
    return None if bad or parts or at is None else (at, [medium[name] for name in names])


def _image(medium: object, _: dict, root: str, complaints: Complaints) -> ImageMedium | None:
    found = _facts(medium, "image", ("width", "height"), complaints)
    if found is None:
        return None
    name, size = found
    try:
        location = Location(root, name)
        return ImageMedium(location, (int(size[0]), int(size[1]))) if size else open_image(location)
    except ExampleError as error:
        complaints(str(error), error.reason)  # it names the file
        return None


def _video(medium: object, raw: dict, root: str, complaints: Complaints) -> VideoMedium | None:
    found = _facts(medium, "video", ("width", "height", "duration"), complaints)
    clip = None
    if "clip" in raw:
        clip = complaints.numbers(raw["clip"], "clip", "start end")
    rates = raw.get("frame_rates")
    if "frame_rates" in raw and not (isinstance(rates, list) and rates and all(is_positive(rate) for rate in rates)):
        complaints(f"frame_rates is a list of numbers above 0, not {rates!r}")
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
        complaints(str(error), error.reason)  # it names the file
        return None
    return dataclasses.replace(video, frame_rates=None if rates is None else tuple(sorted(rates)))


def _subtitles(raw: object, video: VideoMedium, complaints: Complaints) -> tuple[Subtitle, ...] | str | None:
    """Lines in the clip's own time, those of other parts of the video left out; a text stays as it is."""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list):
        complaints("subtitles is neither a text nor a list of [start, end, text]")
        return None
    lines = []
    for index, entry in enumerate(raw):
        if not (isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], str)):
            complaints(f"subtitles[{index}] is [start, end, text], not {entry!r}")
            continue
        span = complaints.numbers(entry[:2], f"subtitles[{index}]", "start end")
        if span is None:
            continue
        start, end = span
        if not 0 <= start <= end:
            complaints(f"subtitles[{index}] runs from {start} to {end} s", "bad_time")
        elif start <= video.end and end >= video.start:
            lines.append((start - video.start, end - video.start, entry[2]))
    return tuple(sorted(lines))
