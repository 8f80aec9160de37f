"""Styles: the table of tasks. A style decides the wording of the prompt, the form of the answer and its loss weight.

    "video_point": Style(VIDEO_POINTS, "video_point", demo=True, points="point", flat_weight=POINTING_WEIGHT)

    kind     its annotation holds points of a video
    asks     the template list that the question is drawn from, unless the record has one
    demo     the style prefix "demo_or_style" puts no "video_point:" before it
    points   text/points.py writes its answer as the tag alone

Names are those of the public reference (arXiv 2601.10611): style prefixes spell them out, so released models know them.
"""

import dataclasses
from collections.abc import Iterable

# Flat loss weights of answer tokens (arXiv 2601.10611).
POINTING_WEIGHT = 0.2  # points and tracks: their text is long, and nearly determined by the image
VIDEO_CAPTION_WEIGHT = 0.1  # captions of videos: thousands of tokens for one video

# Kinds of annotations, and their types in records/annotations.py.
WORDS = "words"  # Text or InlinePoints
CHOICE = "choice"  # Choice
IMAGE_POINTS = "points of an image"  # Points, as the next two
IMAGES_POINTS = "points of several images"
VIDEO_POINTS = "points of a video"
TRACKS = "tracks"  # Tracks

# Values of `asks` for styles without a template list.
QUESTION = "question"  # the record has the question, used verbatim
NAME = "name"  # no question; only the style's name, in the prefix


@dataclasses.dataclass(frozen=True)
class Style:
    """One task.

    `kind`: the kind of its annotation, one of the constants above. `asks`: the list of prompts/templates.py that the
    question is drawn from, or QUESTION, or NAME. `demo`: people ask for it in plain words, so that "demo_or_style"
    gives it no style prefix. `points`: the sentence around a points tag (text/points.py), None for answers without one.
    `flat_weight`: loss weight of each answer token, whatever the answer's length; None for the usual
    c/sqrt(n)/sqrt(branches). `named_as`: the style whose name and prefix are used instead of its own; None for its own.
    """

    kind: str
    asks: str
    demo: bool = False
    points: str | None = None
    flat_weight: float | None = None
    named_as: str | None = None


def _styles(names: Iterable[str], style: Style) -> dict[str, Style]:
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
    "pointing": Style(IMAGE_POINTS, "pointing", demo=True, points="point", flat_weight=POINTING_WEIGHT),
    "point_count": Style(IMAGE_POINTS, "point_count", demo=True, points="point_count", flat_weight=POINTING_WEIGHT),
    "cosyn_point": Style(IMAGE_POINTS, "pointing", demo=True, points="point", flat_weight=POINTING_WEIGHT),
    "refexp_pointing": Style(IMAGE_POINTS, "refexp_pointing", points="point", flat_weight=POINTING_WEIGHT),
    "count_then_point": Style(IMAGE_POINTS, "count_then_point", points="count_point", flat_weight=POINTING_WEIGHT),
    "only_count": Style(IMAGE_POINTS, "only_count", points="count", flat_weight=POINTING_WEIGHT),
    # Points of several images, of all of them or of those a prompt names.
    "multi_image_pointing": Style(
        IMAGES_POINTS, "multi_image_pointing", demo=True, points="point", flat_weight=POINTING_WEIGHT
    ),
    "multi_image_point_then_count": Style(
        IMAGES_POINTS, "multi_image_point_then_count", demo=True, points="point_count", flat_weight=POINTING_WEIGHT
    ),
    "multi_image_count_then_point": Style(
        IMAGES_POINTS, "multi_image_count_then_point", demo=True, points="count_point", flat_weight=POINTING_WEIGHT
    ),
    "multi_image_counting": Style(
        IMAGES_POINTS, "multi_image_counting", demo=True, points="count", flat_weight=POINTING_WEIGHT
    ),
    # Points of a video: the sentence is the style without "video_".
    "video_point": Style(VIDEO_POINTS, "video_point", demo=True, points="point", flat_weight=POINTING_WEIGHT),
    "video_point_count": Style(
        VIDEO_POINTS, "video_point_count", demo=True, points="point_count", flat_weight=POINTING_WEIGHT
    ),
    "video_count_point": Style(
        VIDEO_POINTS, "video_count_point", demo=True, points="count_point", flat_weight=POINTING_WEIGHT
    ),
    "video_count": Style(VIDEO_POINTS, "video_count", demo=True, points="count", flat_weight=POINTING_WEIGHT),
    # Tracks.
    "video_point_track_per_frame": Style(TRACKS, "video_point_track_per_frame", demo=True, flat_weight=POINTING_WEIGHT),
    "video_single_point_track_per_frame": Style(
        TRACKS, "video_single_point_track_per_frame", flat_weight=POINTING_WEIGHT
    ),
    "video_point_ground_start_end": Style(TRACKS, "video_point_ground_start_end", flat_weight=POINTING_WEIGHT),
    # Captions and transcripts. Only the name asks for "merged" and "transcript".
    "short_caption": Style(WORDS, "short_caption", demo=True),
    "long_caption": Style(WORDS, "long_caption", demo=True),
    "long_caption_no_pointing": Style(WORDS, "long_caption_no_pointing"),
    "transcript": Style(WORDS, NAME),
    "video_short_caption": Style(WORDS, "video_short_caption", demo=True, flat_weight=VIDEO_CAPTION_WEIGHT),
    "video_long_caption": Style(WORDS, "video_long_caption", demo=True, flat_weight=VIDEO_CAPTION_WEIGHT),
    "video_merged_caption": Style(WORDS, NAME, flat_weight=VIDEO_CAPTION_WEIGHT),
    "video_motion_caption": Style(WORDS, "video_motion_caption"),
    "video_object_caption": Style(WORDS, "video_object_caption"),
    "video_transcript": Style(WORDS, "video_transcript", demo=True),
    # ... of a part of a video, named by its times. The reference omits them for "short", surely unintended.
    "video_clip_caption_start_end": Style(WORDS, "video_clip_caption_start_end", demo=True),
    "video_clip_short_caption_start_end": Style(WORDS, "video_clip_caption_start_end"),
    "video_clip_transcript_start_end": Style(WORDS, "video_clip_transcript_start_end", demo=True),
    "video_frame_caption_timestamp": Style(WORDS, "video_frame_caption_timestamp", demo=True),
    # Questions as people ask them.
    **_styles(["user_qa", "correction_qa", "text_sft"], Style(WORDS, QUESTION, demo=True)),
    **_styles(["synthetic_qa", "point_qa"], Style(WORDS, QUESTION)),
    # Questions of academic datasets, whose short answers the prefix announces.
    **_styles(
        ["short_answer", "vqa2", "text_vqa", "okvqa", "chart_qa", "doc_qa", "info_qa", "a_okvqa_da", "tabwmp_da"],
        Style(WORDS, QUESTION),
    ),
    **_styles(["st_qa", "tally_qa", "dv_qa", "figure_qa", "plot_qa", "mantis_instruct_da"], Style(WORDS, QUESTION)),
    "eval_short_answer": Style(WORDS, QUESTION, named_as="vqa2"),
    "video_short_answer": Style(WORDS, "short_answer"),
    "video_short_answer_count_without_pointing": Style(WORDS, "short_answer", named_as="video_short_answer"),
    "video_eval_short_answer": Style(WORDS, QUESTION, named_as="video_short_answer"),
    # Labels of actions and times of events, annotated as questions.
    **_styles(
        ["kinetics_label", "moments_in_time_label", "coin_label", "epic_kitchens_label", "youcook2_label"],
        Style(WORDS, QUESTION),
    ),
    **_styles(["activitynet_label", "ego4d_mq_label_clip", "ego4d_mq_label_start_end"], Style(WORDS, QUESTION)),
    **_styles(
        ["charades_sta", "ego4d_mq_temporal_grounding", "ego4d_nlq_temporal_grounding"],
        Style(WORDS, QUESTION),
    ),
    # Rendered charts and documents; "_exp" reasons first. "doc" is the multi-image dataset's name for documents.
    **{f"cosyn_{topic}": Style(WORDS, QUESTION) for topic in _RENDERED},
    **{f"cosyn_{topic}_exp": Style(WORDS, "chain_of_thought") for topic in _RENDERED},
    # Multiple choice: prompts/choice_turns.py words it.
    **_styles(
        ["a_okvqa_mc", "ai2_diagram", "ai2_diagram_no_letter", "science_qa", "mantis_instruct_mc", "multi_image_mc"],
        Style(CHOICE, QUESTION, demo=True),
    ),
    "multi_image_mc_exp": Style(CHOICE, QUESTION, demo=True),
    "eval_multiple_choice": Style(CHOICE, QUESTION, demo=True, named_as="a_okvqa_mc"),
    "eval_multi_image_mc": Style(CHOICE, QUESTION, demo=True, named_as="multi_image_mc"),
    **_styles(["video_multiple_choice", "video_multiple_choice_w_subtitle"], Style(CHOICE, QUESTION, demo=True)),
    "video_multiple_choice_multiple_correct": Style(CHOICE, QUESTION, demo=True),
    "video_multiple_choice_count_without_pointing": Style(
        CHOICE, QUESTION, demo=True, named_as="video_multiple_choice"
    ),
    "video_eval_multiple_choice": Style(CHOICE, QUESTION, demo=True, named_as="video_multiple_choice"),
    "video_eval_multiple_choice_w_subtitle": Style(
        CHOICE, QUESTION, demo=True, named_as="video_multiple_choice_w_subtitle"
    ),
}
