"""PixMo-Points: every instance of what a label names in an image.

Published row (allenai/pixmo-points):

    image_url, image_sha256, label, count, points [{"x": 10.5, "y": 20.0}, ...] in percent,
    collection_method ("pointing", or "counting" for images with many instances of a kind)

An image is a file named by the SHA-256 of its URL. It is left out if its bytes are not those of `image_sha256`, or if
it belongs to the evaluation set. One record asks for all labels of an image; it is split where it would exceed 60
points. Every record comes twice, once to count and once to point. Source: public reference pixmo_datasets.py:170-212.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from data_pipelines.datasets.core.entry import Entry, Row, Skipped
from data_pipelines.datasets.core.percent import clamp_to_frame, is_percent_point, point_from_percent
from data_pipelines.records.annotations import Message, Points
from data_pipelines.records.write import Draft, NamedMedium

MAX_POINTS = 60  # of a label, and of a record
STYLES = ("point_count", "pointing")


def drafts(rows: Iterable[Row], skipped: Skipped, method: str) -> Iterator[Draft]:
    """Two records for at most 60 points of an image, from the rows that were collected by `method`."""
    images: dict[str, list[Row]] = {}
    for row in rows:
        if row["collection_method"] != method:
            skipped[f"not collected by {method}"] += 1
        elif len(row["points"]) > MAX_POINTS:
            skipped[f"more than {MAX_POINTS} points"] += 1
        elif not row["label"].strip():
            skipped["no label"] += 1
        elif not all(map(is_percent_point, row["points"])):
            skipped["a point without x or y"] += 1
        else:
            images.setdefault(row["image_url"], []).append(row)
    for url, labels in images.items():
        name = hashlib.sha256(url.encode()).hexdigest()
        image = NamedMedium(name, labels[0]["image_sha256"])
        for number, part in enumerate(_split_labels(labels)):
            for style in STYLES:
                messages = tuple(_points_message(row, style) for row in part)
                yield Draft(id=f"{name[:16]}-{number}-{style}", images=(image,), messages=messages)


def _split_labels(labels: Sequence[Row]) -> Iterator[list[Row]]:
    """Labels in the given order, split where a part would exceed 60 points. 30, 20, 20 -> [30, 20], [20]."""
    part: list[Row] = []
    for row in labels:
        if part and sum(len(one["points"]) for one in part) + len(row["points"]) > MAX_POINTS:
            yield part
            part = []
        part.append(row)
    yield part


def _points_message(row: Row, style: str) -> Message:
    # Some points are slightly outside the image. The reference clamps them, too.
    points = tuple(point_from_percent(1, clamp_to_frame(place)) for place in row["points"])
    answer = Points(row["label"].strip().lower(), points, alt=None, unanswerable=None)
    return Message(style, user=None, question=None, about=None, answer=answer, weight=1.0, then=())


def _entry(name: str, method: str) -> Entry:
    return Entry(
        name=name,
        hub="allenai/pixmo-points",
        license="ODC-BY-1.0",
        fields=("image_url", "image_sha256", "label", "points", "collection_method"),
        drafts=lambda rows, skipped: drafts(rows, skipped, method),
        held_out=("image_url", "allenai/pixmo-points-eval"),
    )


ENTRIES = (_entry("pixmo_points_train", "pointing"), _entry("pixmo_points_high_freq_train", "counting"))
