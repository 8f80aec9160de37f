"""Styles: what a message trains, as a table. A style decides how points are written and how much a token weighs."""

import dataclasses

POINTING = 0.2  # flat weight of a pointing or tracking token: its text is long and nearly forced by the image
VIDEO_CAPTION = 0.1  # flat weight of a video caption token: thousands of tokens for one video


@dataclasses.dataclass(frozen=True)
class Style:
    """`points`: the sentence around a points tag (text/points.py), None where answers are plain text.

    `flat`: weight of each answer token, whatever the answer's length; None for the usual c/sqrt(n)/sqrt(branches).
    """

    points: str | None
    flat: float | None


STYLES = {
    # style                                  sentence        weight
    "pointing": Style("point", POINTING),
    "point_count": Style("point_count", POINTING),
    "video_point": Style("point", POINTING),
    "video_point_count": Style("point_count", POINTING),
    "video_count_point": Style("count_point", POINTING),
    "video_point_track_per_frame": Style(None, POINTING),
    "video_single_point_track_per_frame": Style(None, POINTING),
    "video_point_ground_start_end": Style(None, POINTING),
    "video_short_caption": Style(None, VIDEO_CAPTION),
    "video_long_caption": Style(None, VIDEO_CAPTION),
    "video_merged_caption": Style(None, VIDEO_CAPTION),
    "short_caption": Style(None, None),
    "long_caption": Style(None, None),
    "user_qa": Style(None, None),
    "short_answer": Style(None, None),
    "video_short_answer": Style(None, None),
    "text_sft": Style(None, None),
}
