"""The table of styles: names, prefixes and loss weights of the recipe."""

import pytest

from data_pipelines.prompts.templates import TEMPLATES
from data_pipelines.records.styles import (
    CHOICE,
    IMAGE_POINTS,
    IMAGES_POINTS,
    NAME,
    QUESTION,
    STYLES,
    TRACKS,
    VIDEO_POINTS,
    WORDS,
)
from data_pipelines.text.points import SENTENCES

# What people ask for in plain words: the active entries of the reference, less those it never uses.
DEMO = {
    *("pointing", "point_count", "cosyn_point", "video_point", "video_point_count", "video_count", "video_count_point"),
    *("multi_image_pointing", "multi_image_counting", "multi_image_point_then_count", "multi_image_count_then_point"),
    *("video_point_track_per_frame", "user_qa", "correction_qa", "text_sft"),
    *("long_caption", "short_caption", "video_long_caption", "video_short_caption", "video_transcript"),
    *("video_clip_caption_start_end", "video_clip_transcript_start_end", "video_frame_caption_timestamp"),
}
VIDEO_CHOICE = {
    *("video_multiple_choice", "video_multiple_choice_count_without_pointing", "video_multiple_choice_w_subtitle"),
    "video_multiple_choice_multiple_correct",
}
IMAGE_CHOICE = {
    *("a_okvqa_mc", "ai2_diagram_no_letter", "ai2_diagram", "science_qa", "eval_multiple_choice", "multi_image_mc"),
    *("multi_image_mc_exp", "mantis_instruct_mc", "eval_multi_image_mc"),
}
EVALUATED = {"video_eval_multiple_choice", "video_eval_multiple_choice_w_subtitle"}  # by the style they are named as


def test_demo_styles_are_those_of_the_recipe():
    demo = {name for name, style in STYLES.items() if style.demo}
    assert demo == DEMO | VIDEO_CHOICE | IMAGE_CHOICE | EVALUATED


@pytest.mark.parametrize("name", sorted(STYLES))
def test_a_style_is_consistent(name):
    style = STYLES[name]
    points = style.kind in (IMAGE_POINTS, IMAGES_POINTS, VIDEO_POINTS)
    assert style.kind in (WORDS, CHOICE, TRACKS) or points
    assert style.asks in (NAME, QUESTION) or style.asks in TEMPLATES
    assert (style.points in SENTENCES) == points
    assert (style.flat_weight == 0.2) == (points or style.kind == TRACKS)
    assert style.named_as is None or STYLES[style.named_as].kind == style.kind
    if style.kind == VIDEO_POINTS:
        assert name == f"video_{style.points}"


def test_flat_weights_are_those_of_pointing_tracking_and_video_captions():
    assert {name for name, style in STYLES.items() if style.flat_weight == 0.1} == {
        "video_short_caption",
        "video_long_caption",
        "video_merged_caption",
    }
    assert {style.flat_weight for style in STYLES.values()} == {None, 0.1, 0.2}


def test_every_list_of_templates_is_some_style_s():
    asked = {style.asks for style in STYLES.values()} - {NAME, QUESTION}
    others = {"several_correct", "video_point_track_per_frame_default_fps"}
    assert asked | others == set(TEMPLATES)
