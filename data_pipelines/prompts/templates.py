"""All lists of prompt templates by name. records/styles.py names the list of each style.

    fill_template("video_point", rng, label="dogs")    ->    Point to dogs.

All templates of a list have the same fields, so any of them can be drawn. Most lists for images are also used for
videos, with "video" in place of "image", "picture" and "photo". The wording is our own; the number of templates is that
of the public reference (olmo/preprocessing/data_formatter.py), without the lists that it no longer uses: multiple
choice and comparisons of counts.
"""

import re
import string

import numpy as np

from data_pipelines.prompts import (
    caption_templates,
    choice_templates,
    count_templates,
    multi_image_templates,
    point_templates,
    question_templates,
    track_templates,
)


def _for_videos(templates: tuple[str, ...]) -> tuple[str, ...]:
    """Describe an image.  ->  Describe a video."""
    words = ((r"\ban image\b", "a video"), (r"\b(image|picture|photo)\b", "video"))
    for pattern, word in words:
        templates = tuple(re.sub(pattern, word, template) for template in templates)
    return templates


TEMPLATES: dict[str, tuple[str, ...]] = {
    "short_caption": caption_templates.SHORT_CAPTION,
    "long_caption": caption_templates.LONG_CAPTION,
    "long_caption_no_pointing": caption_templates.LONG_CAPTION_NO_POINTING,
    "video_short_caption": _for_videos(caption_templates.SHORT_CAPTION),
    "video_long_caption": _for_videos(caption_templates.LONG_CAPTION),
    "video_motion_caption": caption_templates.VIDEO_MOTION_CAPTION,
    "video_object_caption": caption_templates.VIDEO_OBJECT_CAPTION,
    "video_transcript": caption_templates.VIDEO_TRANSCRIPT,
    "video_clip_caption_start_end": caption_templates.VIDEO_CLIP_CAPTION_START_END,
    "video_clip_transcript_start_end": caption_templates.VIDEO_CLIP_TRANSCRIPT_START_END,
    "video_frame_caption_timestamp": caption_templates.VIDEO_FRAME_CAPTION_TIMESTAMP,
    "short_answer": question_templates.SHORT_ANSWER,
    "chain_of_thought": question_templates.CHAIN_OF_THOUGHT,
    "several_correct": choice_templates.SEVERAL_CORRECT,
    "pointing": point_templates.POINTING,
    "refexp_pointing": point_templates.REFEXP_POINTING,
    "point_count": count_templates.POINT_COUNT,
    "count_then_point": count_templates.COUNT_THEN_POINT,
    "only_count": count_templates.ONLY_COUNT,
    "multi_image_pointing": multi_image_templates.MULTI_IMAGE_POINTING,
    "multi_image_point_then_count": multi_image_templates.MULTI_IMAGE_POINT_THEN_COUNT,
    "multi_image_count_then_point": multi_image_templates.MULTI_IMAGE_COUNT_THEN_POINT,
    "multi_image_counting": multi_image_templates.MULTI_IMAGE_COUNTING,
    "video_point": _for_videos(point_templates.POINTING),
    "video_point_count": _for_videos(count_templates.POINT_COUNT),
    "video_count_point": _for_videos(count_templates.COUNT_THEN_POINT),
    "video_count": _for_videos(count_templates.ONLY_COUNT),
    "video_point_track_per_frame": track_templates.VIDEO_POINT_TRACK_PER_FRAME,
    "video_point_track_per_frame_default_fps": track_templates.VIDEO_POINT_TRACK_PER_FRAME_DEFAULT_FPS,
    "video_point_ground_start_end": track_templates.VIDEO_POINT_GROUND_START_END,
    "video_single_point_track_per_frame": track_templates.VIDEO_SINGLE_POINT_TRACK_PER_FRAME,
}


def fill_template(name: str, rng: np.random.Generator, **fields: str) -> str:
    """A template of the list, drawn uniformly, with its fields filled in.

    Texts of records are always values, never part of a template, so braces in them are kept as they are.
    """
    return draw(TEMPLATES[name], rng).format(**fields)


def template_fields(name: str) -> frozenset[str]:
    """The fields of the templates of a list: {"start", "end"} for "video_clip_caption_start_end"."""
    return frozenset(field for _, field, _, _ in string.Formatter().parse(TEMPLATES[name][0]) if field is not None)


def draw(options: tuple[str, ...], rng: np.random.Generator) -> str:
    """One of `options`, drawn uniformly."""
    return options[rng.integers(len(options))]
