"""Molmo2-VideoPoint: points on what a label names in a video, annotated by people on two frames per second.

Published row (allenai/Molmo2-VideoPoint):

    video_id, video_duration, clip_start, clip_end, label, count, question, annotator_unsure,
    two_fps_timestamps [5.5, 6.0],  points [[{"x": 40.1, "y": 50.0}], [{...}, {...}]]       percent of the frame

Rows of one short video become one record: a conversation for one video in five, a tree for the others. Source: public
reference molmo2_datasets.py:739-1032, and the dataset's card (rows whose annotator was unsure are left out).
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence

from data_pipelines.datasets.core.entry import Entry, Row, Skipped
from data_pipelines.datasets.core.percent import in_frame, is_percent_point, point_from_percent
from data_pipelines.records.annotations import AnyOf, Message, Points
from data_pipelines.records.problems import is_number
from data_pipelines.records.write import Draft, NamedMedium

MAX_SECONDS = 63.0  # a longer video is shown by the row's clip, which is at most as long: 128 frames reach 63.5 s
STEP = 0.5  # s between annotated frames
CONVERSATIONS = 5  # one video in this many becomes a conversation
STYLES = ("video_point_count", "video_point")


def drafts(rows: Iterable[Row], skipped: Skipped, least: int, most: int) -> Iterator[Draft]:
    """Records of the rows that have `least` to `most` points."""
    by_video: dict[str, list[Row]] = {}
    for row in rows:
        short = row["video_duration"] <= MAX_SECONDS
        span = (0.0, row["video_duration"]) if short else (row["clip_start"], row["clip_end"])
        reason = _reason_to_skip(row, span, least, most)
        if reason is not None:
            skipped[reason] += 1
        elif short:
            by_video.setdefault(row["video_id"], []).append(row)
        else:
            clip = (float(span[0]), float(span[1]))
            yield _draft(f"{row['video_id']}-{row['label']}-{clip[0]:g}", [row], clip)
    for video, group in by_video.items():
        yield _draft(video, group, None)


def _reason_to_skip(row: Row, span: tuple[float | None, float | None], least: int, most: int) -> str | None:
    """Why a row is left out, None if it is not. `span`: the part of the video to show, in seconds."""
    times = row["two_fps_timestamps"]
    if row["annotator_unsure"]:
        return "annotator unsure"
    if not row["label"].strip():
        return "no label"
    if len(times) != len(row["points"]) or None in row["points"] or not all(map(is_number, times)):
        return "not a list of points for each time"
    places = [place for at_once in row["points"] for place in at_once]
    if not all(map(is_percent_point, places)):
        return "a point without x or y"
    if not all(map(in_frame, places)):
        return "a point outside the frame"
    if not least <= len(places) <= most:
        return f"not {least} to {most} points"
    if None in span:
        return "long video without a clip"
    start, end = span
    if not 0 <= start < end <= row["video_duration"]:
        return "clip outside the video"
    if end - start > MAX_SECONDS:
        return f"clip longer than {MAX_SECONDS:g} s"
    if not all(start <= time <= end for time in times):
        return "time outside the clip"
    return None


def _draft(name: str, rows: Sequence[Row], clip: tuple[float, float] | None) -> Draft:
    """The example of a video's rows: a conversation, or one branch per row, in one of two styles."""
    video = rows[0]["video_id"]
    start = 0.0 if clip is None else clip[0]
    if len(rows) == 1 or _draw(video, CONVERSATIONS) != 0:
        messages = tuple(AnyOf(tuple(_points_message(row, style, start, ()) for style in STYLES)) for row in rows)
    else:
        messages = ()
        for row in reversed(rows):
            style = STYLES[_draw(f"{video}/{row['label']}", len(STYLES))]
            messages = (_points_message(row, style, start, then=messages),)
    return Draft(id=name, video=NamedMedium(f"{video}_2fps.mp4"), clip=clip, messages=messages)


def _points_message(row: Row, style: str, start: float, then: tuple[Message, ...]) -> Message:
    """A question to count is asked as annotated, where there is one; templates word every question to point."""
    points = tuple(
        point_from_percent(_on_grid(time, start), place)
        for time, places in zip(row["two_fps_timestamps"], row["points"], strict=True)
        for place in places
    )
    question = row["question"] if style == "video_point_count" and (row["question"] or "").strip() else None
    answer = Points(row["label"], points, alt=None, unanswerable=None)
    return Message(style, user=None, question=question, about=None, answer=answer, weight=1.0, then=then)


def _on_grid(time: float, start: float) -> float:
    """The annotated frame at or before `time`, a second of the video, in seconds of the clip that begins at `start`."""
    return (start + math.floor((time - start) / STEP + 1e-6) * STEP) - start


def _draw(text: str, n: int) -> int:
    """A number below `n` that is always the same for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % n


def _entry(least: int, most: int) -> Entry:
    return Entry(
        name=f"vixmo_points_minmax_{least}_{most}",
        hub="allenai/Molmo2-VideoPoint",
        license="ODC-BY-1.0",
        fields=(
            "video_id",
            "video_duration",
            "clip_start",
            "clip_end",
            "label",
            "question",
            "two_fps_timestamps",
            "points",
            "annotator_unsure",
        ),
        nullable=("clip_start", "clip_end", "question", "annotator_unsure"),
        drafts=lambda rows, skipped: drafts(rows, skipped, least, most),
    )


ENTRIES = tuple(_entry(*bounds) for bounds in ((0, 5), (6, 25), (26, 60)))
