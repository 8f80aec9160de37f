"""Molmo2-Cap: a video described in three ways.

Published row (allenai/Molmo2-Cap):

    video_id, annotation_score, video_caption, merged_caption, video_frame_merged_caption

Source: public reference molmo2_datasets.py:1347-1462.
"""

from collections.abc import Iterable, Iterator

from data_pipelines.datasets.core.entry import Entry, Row, Skipped
from data_pipelines.records.annotations import Message, Text
from data_pipelines.records.write import Draft, NamedMedium

MIN_SCORE = 3  # of an annotation, as the recipe's name says ("captions_min_3")

# Videos that the reference leaves out because their files are broken. Better copies of them may be decodable, or not.
BROKEN = {"0OfUqrbRa2Y", "mTXBQzptWAg", "NyuA4FatDQk", "a_", "gsfIHiBB6xE", "bXApJtAf6Qo", "N8BlpYSpgg4"}

STYLES = {  # column -> style
    "video_caption": "video_short_caption",
    "merged_caption": "video_merged_caption",
    "video_frame_merged_caption": "video_long_caption",
}


def drafts(rows: Iterable[Row], skipped: Skipped) -> Iterator[Draft]:
    """One record per video, with one branch per caption."""
    for row in rows:
        captions = {style: row[column] for column, style in STYLES.items() if row[column] and row[column].strip()}
        if row["video_id"] in BROKEN:
            skipped["broken video"] += 1
        elif row["annotation_score"] is None or row["annotation_score"] < MIN_SCORE:
            skipped[f"score below {MIN_SCORE}"] += 1
        elif not captions:
            skipped["no caption"] += 1
        else:
            messages = tuple(_caption_message(style, caption) for style, caption in captions.items())
            yield Draft(id=row["video_id"], video=NamedMedium(f"{row['video_id']}.mp4"), messages=messages)


def _caption_message(style: str, caption: str) -> Message:
    answer = Text((caption,), explanation=None)
    return Message(style, user=None, question=None, about=None, answer=answer, weight=1.0, then=())


ENTRIES = (
    Entry(
        name="vixmo3_top_level_captions_min_3",
        hub="allenai/Molmo2-Cap",
        license="ODC-BY-1.0",
        fields=("video_id", "annotation_score", *STYLES),
        nullable=("annotation_score", *STYLES),
        drafts=drafts,
    ),
)
