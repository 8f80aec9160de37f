"""Molmo2-Cap: a video described in three ways.

Published row (allenai/Molmo2-Cap):

    video_id, annotation_score, video_caption, merged_caption, video_frame_merged_caption

Source: public reference molmo2_datasets.py:1347-1462.
"""

from collections.abc import Iterable, Iterator

from data_pipelines.entry import Draft, Entry, Row, Skipped

LEAST_SCORE = 3  # of an annotation, as the recipe's name says ("captions_min_3")

# Videos that the reference leaves out because their files are broken; a better copy of one would be decoded, or not.
BROKEN = {"0OfUqrbRa2Y", "mTXBQzptWAg", "NyuA4FatDQk", "a_", "gsfIHiBB6xE", "bXApJtAf6Qo", "N8BlpYSpgg4"}

STYLES = {  # column -> style
    "video_caption": "video_short_caption",
    "merged_caption": "video_merged_caption",
    "video_frame_merged_caption": "video_long_caption",
}


def drafts(rows: Iterable[Row], skipped: Skipped) -> Iterator[Draft]:
    """A record a video, a branch for each caption it has."""
    for row in rows:
        captions = [(style, row[column]) for column, style in STYLES.items() if row[column] and row[column].strip()]
        if row["video_id"] in BROKEN:
            skipped["broken video"] += 1
        elif row["annotation_score"] is None or row["annotation_score"] < LEAST_SCORE:
            skipped[f"score below {LEAST_SCORE}"] += 1
        elif not captions:
            skipped["no caption"] += 1
        else:
            messages = [{"style": style, "answer": caption} for style, caption in captions]
            yield {"id": row["video_id"], "video": f"{row['video_id']}.mp4", "messages": messages}


ENTRIES = (
    Entry(
        name="molmo2_cap",
        hub="allenai/Molmo2-Cap",
        license="ODC-BY-1.0",
        fields=("video_id", "annotation_score", *STYLES),
        nullable=("annotation_score", *STYLES),
        drafts=drafts,
    ),
)
