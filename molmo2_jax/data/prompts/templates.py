"""Every list of prompt templates by name; which style takes which list is told by data/styles.py.

    fill("video_point", rng, label="dogs")    ->    Point to dogs.

All templates of a list have the same keywords, so any of them can be drawn. Most lists of images serve videos, too,
with "video" for "image", "picture" and "photo". The wording is ours, the numbers are the public reference's
(olmo/preprocessing/data_formatter.py), less the lists it no longer uses: multiple choice and comparisons of counts.
"""

import re
import string

import numpy as np

from molmo2_jax.data.prompts import (
    ask_captions,
    ask_choice,
    ask_counts,
    ask_images,
    ask_points,
    ask_questions,
    ask_tracks,
)


def _of_video(templates: tuple[str, ...]) -> tuple[str, ...]:
    """Describe an image.  ->  Describe a video."""
    words = ((r"\ban image\b", "a video"), (r"\b(image|picture|photo)\b", "video"))
    for pattern, word in words:
        templates = tuple(re.sub(pattern, word, template) for template in templates)
    return templates


TEMPLATES: dict[str, tuple[str, ...]] = {
    "short_caption": ask_captions.SHORT_CAPTION,
    "long_caption": ask_captions.LONG_CAPTION,
    "long_caption_no_pointing": ask_captions.LONG_CAPTION_NO_POINTING,
    "video_short_caption": _of_video(ask_captions.SHORT_CAPTION),
    "video_long_caption": _of_video(ask_captions.LONG_CAPTION),
    "video_motion_caption": ask_captions.VIDEO_MOTION_CAPTION,
    "video_object_caption": ask_captions.VIDEO_OBJECT_CAPTION,
    "video_transcript": ask_captions.VIDEO_TRANSCRIPT,
    "video_clip_caption_start_end": ask_captions.VIDEO_CLIP_CAPTION_START_END,
    "video_clip_transcript_start_end": ask_captions.VIDEO_CLIP_TRANSCRIPT_START_END,
    "video_frame_caption_timestamp": ask_captions.VIDEO_FRAME_CAPTION_TIMESTAMP,
    "short_answer": ask_questions.SHORT_ANSWER,
    "chain_of_thought": ask_questions.CHAIN_OF_THOUGHT,
    "several_correct": ask_choice.SEVERAL_CORRECT,
    "pointing": ask_points.POINTING,
    "refexp_pointing": ask_points.REFEXP_POINTING,
    "point_count": ask_counts.POINT_COUNT,
    "count_then_point": ask_counts.COUNT_THEN_POINT,
    "only_count": ask_counts.ONLY_COUNT,
    "multi_image_pointing": ask_images.MULTI_IMAGE_POINTING,
    "multi_image_point_then_count": ask_images.MULTI_IMAGE_POINT_THEN_COUNT,
    "multi_image_count_then_point": ask_images.MULTI_IMAGE_COUNT_THEN_POINT,
    "multi_image_counting": ask_images.MULTI_IMAGE_COUNTING,
    "video_point": _of_video(ask_points.POINTING),
    "video_point_count": _of_video(ask_counts.POINT_COUNT),
    "video_count_point": _of_video(ask_counts.COUNT_THEN_POINT),
    "video_count": _of_video(ask_counts.ONLY_COUNT),
    "video_point_track_per_frame": ask_tracks.VIDEO_POINT_TRACK_PER_FRAME,
    "video_point_track_per_frame_default_fps": ask_tracks.VIDEO_POINT_TRACK_PER_FRAME_DEFAULT_FPS,
    "video_point_ground_start_end": ask_tracks.VIDEO_POINT_GROUND_START_END,
    "video_single_point_track_per_frame": ask_tracks.VIDEO_SINGLE_POINT_TRACK_PER_FRAME,
}


def fill(name: str, rng: np.random.Generator, **keywords: str) -> str:
    """A template of the list, drawn evenly, with its keywords in place.

    Texts of records are only ever values here, never part of a template, so braces in them stay what they are.
    """
    return draw(TEMPLATES[name], rng).format(**keywords)


def keywords(name: str) -> frozenset[str]:
    """What the templates of a list ask for: {"start", "end"} for "video_clip_caption_start_end"."""
    return frozenset(field for _, field, _, _ in string.Formatter().parse(TEMPLATES[name][0]) if field is not None)


def draw(options: tuple[str, ...], rng: np.random.Generator) -> str:
    """One of `options`, each as likely as the others."""
    return options[rng.integers(len(options))]
