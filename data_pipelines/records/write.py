"""Writes records as JSON: the inverse of records/read.py.

    read_record(write_record(record), root, where) == record

x and y are written as fractions of the frame ("scale": [1, 1]). Times of a clip that does not start at 0 are written as
seconds of the clip ("times": "clip"). Both are read back exactly; seconds of the video would not be, because
(t + start) - start is not always t in floats.

A dataset's builder writes drafts. A draft names its media by file, because nothing is known of them yet:

    Draft(id="9f-0", images=(NamedMedium("9f.jpg", "2cf24dba"),), messages=(Message("pointing", ...),))
      ->  {"id": "9f-0", "image": {"file": "9f.jpg", "sha256": "2cf24dba"}, "messages": [{"style": "pointing", ...}]}

datasets/core/folder.py stores and probes each medium, and replaces its name with {"at": ..., "width": ..., ...}.
"""

import dataclasses
import json

from data_pipelines.media.location import InMemory, Location
from data_pipelines.media.medium import ImageMedium, VideoMedium
from data_pipelines.records.annotations import Answer, AnyOf, Choice, InlinePoints, Message, Points, Text, Tracks
from data_pipelines.records.read import Record, Subtitles
from data_pipelines.text.points import Point

FRACTIONS = [1, 1]  # the "scale" of x and y


@dataclasses.dataclass(frozen=True)
class NamedMedium:
    """A media file by its name. `sha256`: of the file that was annotated, in hexadecimal; None where it is unknown."""

    name: str
    sha256: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """An example whose media are not probed yet: a video or images, or neither for text only.

    `clip`: the part of the video to show, in seconds of the video; None for all of it. Times of `subtitles` and
    `messages` are seconds of the clip, x and y fractions of the frame. `frame_rates`: as in VideoMedium. Raises
    ValueError for a video next to images, and for keys of a video without one.
    """

    id: str
    messages: tuple[Message | AnyOf, ...]
    video: NamedMedium | None = None
    clip: tuple[float, float] | None = None
    frame_rates: tuple[float, ...] | None = None
    subtitles: Subtitles = None
    images: tuple[NamedMedium, ...] = ()

    def __post_init__(self):
        if self.video is not None and self.images:
            raise ValueError(f"draft {self.id!r} has both a video and images; give one of them")
        for key in ("clip", "frame_rates", "subtitles"):
            if self.video is None and getattr(self, key) is not None:
                raise ValueError(f"draft {self.id!r} has {key} but no video")


def write_record(record: Record) -> bytes:
    """The record as one line of JSON in UTF-8, without a newline. Its media carry their facts: none is probed again.

    Raises ValueError for what no line of JSON can hold: media in memory or of both kinds, points without a medium, NaN.
    """
    match record.media:
        case (VideoMedium() as video,):
            facts = {"at": _stored_name(video.location), "width": video.width, "height": video.height}
            whole = video.start == 0 and video.end == video.duration
            clip = None if whole else (video.start, video.end)
            raw = _video_keys(facts | {"duration": video.duration}, clip, video.frame_rates, record.subtitles)
        case (*images,) if all(isinstance(image, ImageMedium) for image in images):
            raw = _image_keys(
                [
                    {"at": _stored_name(image.location), "width": image.size[0], "height": image.size[1]}
                    for image in images
                ]
            )
        case _:
            raise ValueError(f"{record.where}: its media are neither one video nor images: {record.media}")
    return json.dumps(_example_json(record.id, raw, record.messages), ensure_ascii=False, allow_nan=False).encode()


def write_draft(draft: Draft) -> dict:
    """The draft as a JSON object. It is a record, except that it names its media by file.

    A medium is "a.jpg", or {"file": "a.jpg", "sha256": "2cf24dba"} where its SHA-256 is known. Raises ValueError for
    points without a medium.
    """
    if draft.video is not None:
        raw = _video_keys(_file_json(draft.video), draft.clip, draft.frame_rates, draft.subtitles)
    else:
        raw = _image_keys([_file_json(image) for image in draft.images])
    return _example_json(draft.id, raw, draft.messages)


def _example_json(name: str, media: dict, messages: tuple[Message | AnyOf, ...]) -> dict:
    kind = next((kind for kind in ("video", "image", "images") if kind in media), "text")
    return {"id": name, **media, "messages": _write_messages(messages, kind)}


def _stored_name(location: Location | InMemory) -> str:
    if isinstance(location, InMemory):
        raise ValueError(f"{location}: a medium in memory has no file that a record could name; store it first")
    return location.name


def _file_json(medium: NamedMedium) -> str | dict:
    return medium.name if medium.sha256 is None else {"file": medium.name, "sha256": medium.sha256}


def _video_keys(
    medium: str | dict,
    clip: tuple[float, float] | None,
    frame_rates: tuple[float, ...] | None,
    subtitles: Subtitles,
) -> dict:
    raw = {"video": medium}
    if clip is not None:
        raw["clip"] = list(clip)
        if clip[0] != 0:
            raw["times"] = "clip"
    if frame_rates is not None:
        raw["frame_rates"] = list(frame_rates)
    if subtitles is not None:
        raw["subtitles"] = subtitles if isinstance(subtitles, str) else [list(line) for line in subtitles]
    return raw


def _image_keys(media: list) -> dict:
    if len(media) > 1:
        return {"images": media}
    return {"image": media[0]} if media else {}


def _write_messages(messages: tuple[Message | AnyOf, ...], kind: str) -> list[dict]:
    """`kind` of the media: "video", "image", "images" or "text"."""
    raw = []
    # A comprehension would need one more stack frame per level: what can be read could then be too deep to write.
    for message in messages:
        if isinstance(message, AnyOf):
            raw.append({"any": _write_messages(message.choices, kind)})
        else:
            raw.append(_write_message(message, kind))
    return raw


def _write_message(message: Message, kind: str) -> dict:
    raw = {"style": message.style}
    if message.user is not None:
        raw["user"] = message.user
    if message.question is not None:
        raw["question"] = message.question
    if message.about is not None:
        raw["about"] = list(message.about) if isinstance(message.about, tuple) else message.about
    raw |= _write_answer(message.answer, kind)
    if message.weight != 1:
        raw["weight"] = message.weight
    if message.then:
        raw["then"] = _write_messages(message.then, kind)
    return raw


def _write_answer(answer: Answer, kind: str) -> dict:
    """The keys that an answer adds to its message."""
    match answer:
        case Text(answers, explanation):
            raw = {"answer": answers[0] if len(answers) == 1 else list(answers)}
            return raw if explanation is None else raw | {"explanation": explanation}
        case Choice(options, correct, labelled):
            raw = {"options": list(options), "correct": correct[0] if len(correct) == 1 else list(correct)}
            return raw if labelled else raw | {"labelled": False}
        case Points():
            return {"answer": _write_points(answer, kind)}
        case Tracks(label, frames, fps):
            tracks = [
                {"time": frame.time, "points": {name: list(xy) for name, xy in frame.points.items()}}
                for frame in frames
            ]
            return {"answer": {"label": label, "tracks": tracks, "fps": fps, "scale": FRACTIONS}}
        case InlinePoints(text, points):
            return {"answer": text, "points": [_write_points(one, kind) for one in points]}
        case _:
            raise TypeError(f"{answer!r} is not an annotation of records/annotations.py")


def _write_points(points: Points, kind: str) -> dict:
    raw = {"label": points.label, "points": [_write_point(point, kind) for point in points.points], "scale": FRACTIONS}
    if points.alt is not None:
        raw["alt"] = points.alt
    if points.unanswerable is not None:
        raw["unanswerable"] = points.unanswerable
    return raw


def _write_point(point: Point, kind: str) -> dict:
    xy = {"x": point.x, "y": point.y}
    if kind == "video":
        return {"time": point.key} | xy
    if kind == "images":
        return {"image": point.key} | xy
    if kind == "text" or point.key != 1:
        raise ValueError(f"{point}: no such medium, the example has {'one image' if kind == 'image' else 'none'}")
    return xy
