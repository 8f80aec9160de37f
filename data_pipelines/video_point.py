"""Molmo2-VideoPoint: points on what a label names in a video, by people, on frames at two a second.

Published row (allenai/Molmo2-VideoPoint):

    video_id, video_duration, clip_start, clip_end, label, count, question, annotator_unsure,
    two_fps_timestamps [5.5, 6.0],  points [[{"x": 40.1, "y": 50.0}], [{...}, {...}]]       percent of the frame

Rows of one short video become one record: for one video in five a conversation, for the others a tree. Source: public
reference molmo2_datasets.py:739-1032, and the dataset's card (rows whose annotator was unsure are left out).
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence

from data_pipelines.entry import Draft, Entry, Row, Skipped, is_place
from molmo2_jax.data.complaints import is_number

WHOLE = 63.0  # s; longer videos are shown by the row's clip only, which is no longer either: 128 frames reach 63.5 s
STEP = 0.5  # s between the frames that were annotated
CONVERSATIONS = 5  # one video in so many becomes a conversation
PERCENT = [100, 100]


def drafts(rows: Iterable[Row], skipped: Skipped, least: int, most: int) -> Iterator[Draft]:
    """Records of the rows that have `least` to `most` points."""
    together: dict[str, list[Row]] = {}
    for row in rows:
        short = row["video_duration"] <= WHOLE
        span = (0.0, row["video_duration"]) if short else (row["clip_start"], row["clip_end"])
        fault = _fault(row, span, least, most)
        if fault is not None:
            skipped[fault] += 1
        elif short:
            together.setdefault(row["video_id"], []).append(row)
        else:
            clip = [float(time) for time in span]
            yield _record(f"{row['video_id']}-{row['label']}-{clip[0]:g}", [row], clip)
    for video, group in together.items():
        yield _record(video, group, None)


def _fault(row: Row, span: tuple[float | None, float | None], least: int, most: int) -> str | None:
    """Why a row is left out, None if it is not; `span` is what would be shown of the video, in seconds."""
    times = row["two_fps_timestamps"]
    if row["annotator_unsure"]:
        return "annotator unsure"
    if not row["label"].strip():
        return "no label"
    if len(times) != len(row["points"]) or None in row["points"] or not all(map(is_number, times)):
        return "not a list of points for each time"
    places = [place for at_once in row["points"] for place in at_once]
    if not all(map(is_place, places)):
        return "a point without x or y"
    if not all(0 <= place[axis] <= 100 for place in places for axis in ("x", "y")):
        return "a point outside the frame"
    if not least <= len(places) <= most:
        return f"not {least} to {most} points"
    if None in span:
        return "long video without a clip"
    start, end = span
    if not 0 <= start < end <= row["video_duration"]:
        return "clip outside the video"
    if end - start > WHOLE:
        return f"clip longer than {WHOLE:g} s"
    if not all(start <= time <= end for time in times):
        return "time outside the clip"
    return None


def _record(name: str, rows: Sequence[Row], clip: list[float] | None) -> Draft:
    video = rows[0]["video_id"]
    record = {"id": name, "video": f"{video}_2fps.mp4", **({} if clip is None else {"clip": clip})}
    start = 0.0 if clip is None else clip[0]
    if len(rows) == 1 or _draw(video, CONVERSATIONS) != 0:
        return record | {"messages": [{"any": [_message(row, s, start) for s in STYLES]} for row in rows]}
    chain: list[Draft] = []
    for row in reversed(rows):
        style = STYLES[_draw(f"{video}/{row['label']}", len(STYLES))]
        chain = [_message(row, style, start) | ({"then": chain} if chain else {})]
    return record | {"messages": chain}


STYLES = ("video_point_count", "video_point")


def _message(row: Row, style: str, start: float) -> Draft:
    """A counting question is asked as it was annotated, where it was; pointing always by templates."""
    points = [
        {"time": start + math.floor((time - start) / STEP + 1e-6) * STEP, "x": place["x"], "y": place["y"]}
        for time, places in zip(row["two_fps_timestamps"], row["points"], strict=True)
        for place in places
    ]
    answer = {"label": row["label"], "points": points, "scale": PERCENT}
    question = {"question": row["question"]} if style == "video_point_count" and (row["question"] or "").strip() else {}
    return {"style": style, **question, "answer": answer}


def _draw(text: str, ways: int) -> int:
    """A number below `ways` that is always the same for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % ways


def _entry(least: int, most: int) -> Entry:
    return Entry(
        name=f"molmo2_video_point_{least}_{most}",
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
