"""PixMo-points: every instance of what a label names in an image.

Published row (allenai/pixmo-points):

    image_url, image_sha256, label, count, points [{"x": 10.5, "y": 20.0}, ...] in percent,
    collection_method ("pointing", or "counting" for images with many of a kind)

Images are files named by the SHA-256 of their URL; one that is no longer the image of `image_sha256` is left out, and
those of the evaluation set are. All labels of an image are asked in one record, cut where it would have more than 60
points; every record comes twice, to count and to point. Source: public reference pixmo_datasets.py:170-212.
"""

import hashlib
from collections.abc import Iterable, Iterator

from data_pipelines.entry import Draft, Entry, Row, Skipped, is_place

MOST = 60  # points of a label, and of a record
PERCENT = [100, 100]
STYLES = ("point_count", "pointing")


def drafts(rows: Iterable[Row], skipped: Skipped, method: str) -> Iterator[Draft]:
    """Two records for at most 60 points of an image."""
    images: dict[str, list[Row]] = {}
    for row in rows:
        if row["collection_method"] != method:
            skipped[f"not collected by {method}"] += 1
        elif len(row["points"]) > MOST:
            skipped[f"more than {MOST} points"] += 1
        elif not row["label"].strip():
            skipped["no label"] += 1
        elif not all(map(is_place, row["points"])):
            skipped["a point without x or y"] += 1
        else:
            images.setdefault(row["image_url"], []).append(row)
    for url, labels in images.items():
        name = hashlib.sha256(url.encode()).hexdigest()
        image = {"file": name, "sha256": labels[0]["image_sha256"]}
        for number, part in enumerate(_parts(labels)):
            for style in STYLES:
                messages = [{"style": style, "answer": _answer(row)} for row in part]
                yield {"id": f"{name[:16]}-{number}-{style}", "image": image, "messages": messages}


def _parts(labels: list[Row]) -> Iterator[list[Row]]:
    """Labels in the order given, cut before a part would have more than 60 points. 30, 20, 20 -> [30, 20], [20]."""
    part: list[Row] = []
    for row in labels:
        if part and sum(len(one["points"]) for one in part) + len(row["points"]) > MOST:
            yield part
            part = []
        part.append(row)
    yield part


def _answer(row: Row) -> Draft:
    # The reference keeps points in the image by force, too: some are a hair outside.
    points = [{axis: min(max(place[axis], 0), 100) for axis in ("x", "y")} for place in row["points"]]
    return {"label": row["label"].strip().lower(), "points": points, "scale": PERCENT}


def _entry(name: str, method: str) -> Entry:
    return Entry(
        name=name,
        hub="allenai/pixmo-points",
        license="ODC-BY-1.0",
        fields=("image_url", "image_sha256", "label", "points", "collection_method"),
        drafts=lambda rows, skipped: drafts(rows, skipped, method),
        held_out=("image_url", "allenai/pixmo-points-eval"),
    )


ENTRIES = (_entry("pixmo_points", "pointing"), _entry("pixmo_points_high_freq", "counting"))
