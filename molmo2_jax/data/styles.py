"""Styles: what a message trains, as one table. A style decides the prompt's wording, the answer's form and its weight.

    "video_point": Style(VIDEO_POINTS, "video_point", demo=True, points="point", flat=0.2)

    kind    its annotation holds points of a video, text/points.py writes them as the tag alone
    asks    the template list "video_point" words the question, unless the record brings one
    demo    no "video_point:" goes before it under the style prefix "demo_or_style"

Names are those of the public reference (arXiv 2601.10611): a style prefix spells them out, so models know them.
"""

import dataclasses
from collections.abc import Iterable

POINTING = 0.2  # flat weight of a pointing or tracking token: its text is long and nearly forced by the image
VIDEO_CAPTION = 0.1  # flat weight of a video caption token: thousands of tokens for one video

# What the annotation of a style is (data/annotations.py).
WORDS = "words"  # Text or InlinePoints
CHOICE = "choice"  # Choice
IMAGE_POINTS = "points of an image"  # Points, as the next two
IMAGES_POINTS = "points of several images"
VIDEO_POINTS = "points of a video"
TRACKS = "tracks"  # Tracks

# Where no template list words the question.
QUESTION = "question"  # the record brings the question, verbatim
NAME = "name"  # nothing asks but the style's name in the prefix


@dataclasses.dataclass(frozen=True)
class Style:
    """One kind of message.

    `kind`: what its annotation is, one of the constants above. `asks`: the list of data/prompts/templates.py that words
    the question, or QUESTION, or NAME. `demo`: what people ask for in plain words, so that it needs no style prefix
    under "demo_or_style". `points`: the sentence around a points tag (text/points.py), None where there is none.
    `flat`: weight of each answer token, whatever the answer's length; None for the usual c/sqrt(n)/sqrt(branches).
    `said`: the style whose name and prefix are used in place of its own, None for its own.
    """

    kind: str
    asks: str
    demo: bool = False
    points: str | None = None
    flat: float | None = None
    said: str | None = None


def _same(names: Iterable[str], style: Style) -> dict[str, Style]:
    return dict.fromkeys(names, style)


_RENDERED = (
    "chart",
    "chemical",
    "circuit",
    "diagram",
    "doc",
    "document",
    "graphic",
    "math",
    "music",
    "nutrition",
    "table",
)

STYLES: dict[str, Style] = {
    # Points of an image: a tag, a count with its tag, a count alone.
    "pointing": Style(IMAGE_POINTS, "pointing", demo=True, points="point", flat=POINTING),
    "point_count": Style(IMAGE_POINTS, "point_count", demo=True, points="point_count", flat=POINTING),
    "cosyn_point": Style(IMAGE_POINTS, "pointing", demo=True, points="point", flat=POINTING),
    "refexp_pointing": Style(IMAGE_POINTS, "refexp_pointing", points="point", flat=POINTING),
    "count_then_point": Style(IMAGE_POINTS, "count_then_point", points="count_point", flat=POINTING),
    "only_count": Style(IMAGE_POINTS, "only_count", points="count", flat=POINTING),
    # Points of several images, of all of them or of those a prompt names.
    "multi_image_pointing": Style(IMAGES_POINTS, "multi_image_pointing", demo=True, points="point", flat=POINTING),
    "multi_image_point_then_count": Style(
        IMAGES_POINTS, "multi_image_point_then_count", demo=True, points="point_count", flat=POINTING
    ),
    "multi_image_count_then_point": Style(
        IMAGES_POINTS, "multi_image_count_then_point", demo=True, points="count_point", flat=POINTING
    ),
    "multi_image_counting": Style(IMAGES_POINTS, "multi_image_counting", demo=True, points="count", flat=POINTING),
    # Points of a video: the sentence is the style without "video_".
    "video_point": Style(VIDEO_POINTS, "video_point", demo=True, points="point", flat=POINTING),
    "video_point_count": Style(VIDEO_POINTS, "video_point_count", demo=True, points="point_count", flat=POINTING),
    "video_count_point": Style(VIDEO_POINTS, "video_count_point", demo=True, points="count_point", flat=POINTING),
    "video_count": Style(VIDEO_POINTS, "video_count", demo=True, points="count", flat=POINTING),
    # Tracks.
    "video_point_track_per_frame": Style(TRACKS, "video_point_track_per_frame", demo=True, flat=POINTING),
    "video_single_point_track_per_frame": Style(TRACKS, "video_single_point_track_per_frame", flat=POINTING),
    "video_point_ground_start_end": Style(TRACKS, "video_point_ground_start_end", flat=POINTING),
    # Captions and transcripts. "merged" and "transcript" are asked for by name alone.
    "short_caption": Style(WORDS, "short_caption", demo=True),
    "long_caption": Style(WORDS, "long_caption", demo=True),
    "long_caption_no_pointing": Style(WORDS, "long_caption_no_pointing"),
    "transcript": Style(WORDS, NAME),
    "video_short_caption": Style(WORDS, "video_short_caption", demo=True, flat=VIDEO_CAPTION),
    "video_long_caption": Style(WORDS, "video_long_caption", demo=True, flat=VIDEO_CAPTION),
    "video_merged_caption": Style(WORDS, NAME, flat=VIDEO_CAPTION),
    "video_motion_caption": Style(WORDS, "video_motion_caption"),
    "video_object_caption": Style(WORDS, "video_object_caption"),
    "video_transcript": Style(WORDS, "video_transcript", demo=True),
    # ... of a part of a video, named by its times. The reference inserts none for "short", surely unintended.
    "video_clip_caption_start_end": Style(WORDS, "video_clip_caption_start_end", demo=True),
    "video_clip_short_caption_start_end": Style(WORDS, "video_clip_caption_start_end"),
    "video_clip_transcript_start_end": Style(WORDS, "video_clip_transcript_start_end", demo=True),
    "video_frame_caption_timestamp": Style(WORDS, "video_frame_caption_timestamp", demo=True),
    # Questions as people ask them.
    **_same(["user_qa", "correction_qa", "text_sft"], Style(WORDS, QUESTION, demo=True)),
    **_same(["synthetic_qa", "point_qa"], Style(WORDS, QUESTION)),
    # Questions of academic sets, whose short answers the prefix announces.
    **_same(
        ["short_answer", "vqa2", "text_vqa", "okvqa", "chart_qa", "doc_qa", "info_qa", "a_okvqa_da", "tabwmp_da"],
        Style(WORDS, QUESTION),
    ),
    **_same(["st_qa", "tally_qa", "dv_qa", "figure_qa", "plot_qa", "mantis_instruct_da"], Style(WORDS, QUESTION)),
    "eval_short_answer": Style(WORDS, QUESTION, said="vqa2"),
    "video_short_answer": Style(WORDS, "short_answer"),
    "video_short_answer_count_without_pointing": Style(WORDS, "short_answer", said="video_short_answer"),
    "video_eval_short_answer": Style(WORDS, QUESTION, said="video_short_answer"),
    # Labels of actions and times of events, annotated as questions.
    **_same(
        ["kinetics_label", "moments_in_time_label", "coin_label", "epic_kitchens_label", "youcook2_label"],
        Style(WORDS, QUESTION),
    ),
    **_same(["activitynet_label", "ego4d_mq_label_clip", "ego4d_mq_label_start_end"], Style(WORDS, QUESTION)),
    **_same(
        ["charades_sta", "ego4d_mq_temporal_grounding", "ego4d_nlq_temporal_grounding"],
        Style(WORDS, QUESTION),
    ),
    # Rendered charts and documents; "_exp" reasons first. "doc" is the multi-image set's name for documents.
    **{f"cosyn_{topic}": Style(WORDS, QUESTION) for topic in _RENDERED},
    **{f"cosyn_{topic}_exp": Style(WORDS, "chain_of_thought") for topic in _RENDERED},
    # Multiple choice: data/prompts/choice.py words it.
    **_same(
        ["a_okvqa_mc", "ai2_diagram", "ai2_diagram_no_letter", "science_qa", "mantis_instruct_mc", "multi_image_mc"],
        Style(CHOICE, QUESTION, demo=True),
    ),
    "multi_image_mc_exp": Style(CHOICE, QUESTION, demo=True),
    "eval_multiple_choice": Style(CHOICE, QUESTION, demo=True, said="a_okvqa_mc"),
    "eval_multi_image_mc": Style(CHOICE, QUESTION, demo=True, said="multi_image_mc"),
    **_same(["video_multiple_choice", "video_multiple_choice_w_subtitle"], Style(CHOICE, QUESTION, demo=True)),
    "video_multiple_choice_multiple_correct": Style(CHOICE, QUESTION, demo=True),
    "video_multiple_choice_count_without_pointing": Style(CHOICE, QUESTION, demo=True, said="video_multiple_choice"),
    "video_eval_multiple_choice": Style(CHOICE, QUESTION, demo=True, said="video_multiple_choice"),
    "video_eval_multiple_choice_w_subtitle": Style(
        CHOICE, QUESTION, demo=True, said="video_multiple_choice_w_subtitle"
    ),
}
