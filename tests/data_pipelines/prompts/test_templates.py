"""The template lists: as many templates as the reference has, all different, safe for any text."""

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.prompts import choice_templates, no_pointing
from data_pipelines.prompts.templates import TEMPLATES, draw, fill_template, template_fields
from data_pipelines.text.qwen_tokenizer import CONTROL_TOKENS
from data_pipelines.text.tokenizer import SPECIAL_TOKENS

COUNTS = {  # of the public reference
    "short_answer": 15,
    "short_caption": 11,
    "video_short_caption": 11,
    "long_caption": 23,
    "video_long_caption": 23,
    "long_caption_no_pointing": 5,
    "video_motion_caption": 10,
    "video_object_caption": 10,
    "video_transcript": 5,
    "video_clip_caption_start_end": 21,
    "video_clip_transcript_start_end": 5,
    "video_frame_caption_timestamp": 13,
    "chain_of_thought": 1,
    "several_correct": 5,
    "pointing": 43,
    "video_point": 43,
    "refexp_pointing": 14,
    "point_count": 60,
    "video_point_count": 60,
    "only_count": 6,
    "video_count": 6,
    "count_then_point": 6,
    "video_count_point": 6,
    "multi_image_pointing": 11,
    "multi_image_point_then_count": 14,
    "multi_image_counting": 9,
    "multi_image_count_then_point": 9,
    "video_point_track_per_frame": 10,
    "video_point_track_per_frame_default_fps": 8,
    "video_point_ground_start_end": 7,
    "video_single_point_track_per_frame": 12,
}
CHOICE_COUNTS = {
    "COMMON_MARKERS": 4,
    "ODD_MARKERS": 19,
    "BULLETS": 10,
    "NAME_INSTRUCTIONS": 16,
    "OPTION_INSTRUCTIONS": 14,
    "NAMED_OPTION_INSTRUCTIONS": 2,
    "INSTRUCTION_LAYOUTS": 15,
    "NAME_LAYOUTS": 9,
    "OPTION_LAYOUTS": 19,
}
CHOICE = {name: getattr(choice_templates, name) for name in CHOICE_COUNTS}
EVERY_LIST = TEMPLATES | CHOICE | {"NO_POINTING": no_pointing.NO_POINTING}


def fields(template):
    return {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}


def test_there_are_as_many_as_in_the_reference():
    assert {name: len(templates) for name, templates in TEMPLATES.items()} == COUNTS
    assert {name: len(templates) for name, templates in CHOICE.items()} == CHOICE_COUNTS
    assert len(no_pointing.NO_POINTING) == 32


@pytest.mark.parametrize("name", EVERY_LIST)
def test_no_template_appears_twice(name):
    texts = [" ".join(template.split()) if name in TEMPLATES else template for template in EVERY_LIST[name]]
    assert sorted(set(texts)) == sorted(texts)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_of_a_list_have_the_same_fields_each_once(name):
    for template in TEMPLATES[name]:
        assert fields(template) == template_fields(name)
        assert all(template.count(f"{{{field}}}") == 1 for field in template_fields(name)), template


def test_layouts_of_multiple_choice_have_question_and_options_once():
    for name, more in (("INSTRUCTION_LAYOUTS", {"instruct"}), ("NAME_LAYOUTS", {"name"}), ("OPTION_LAYOUTS", set())):
        for layout in CHOICE[name]:
            assert fields(layout) == {"question", "options"} | more
            assert layout.count("{question}") == layout.count("{options}") == 1
    for instruction in choice_templates.NAME_INSTRUCTIONS + choice_templates.NAMED_OPTION_INSTRUCTIONS:
        assert fields(instruction) == {"name"}
    assert not any(fields(instruction) for instruction in choice_templates.OPTION_INSTRUCTIONS)


@pytest.mark.parametrize("name", EVERY_LIST)
def test_no_template_contains_a_special_token(name):
    for template in EVERY_LIST[name]:
        assert not any(token in template for token in (*CONTROL_TOKENS, *SPECIAL_TOKENS))


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name.startswith("video_")])
def test_templates_of_videos_do_not_say_image(name):
    words = "image", "picture", "photo"
    if name == "video_frame_caption_timestamp":  # a frame is a picture
        return
    assert not [template for template in TEMPLATES[name] if any(word in template for word in words)]


@settings(max_examples=50)
@given(st.sampled_from(sorted(TEMPLATES)), st.text(max_size=20), st.integers(0, 2**32))
def test_texts_survive_every_template(name, text, seed):
    values = dict.fromkeys(template_fields(name), f"{text}{{label}} {{0}} }}{{ <|im_end|> %s")
    filled = fill_template(name, np.random.default_rng(seed), **values)
    assert filled.count(next(iter(values.values()), "")) >= len(values)


def test_every_template_is_drawn():
    rng = np.random.default_rng(0)
    assert {draw(TEMPLATES["pointing"], rng) for _ in range(600)} == set(TEMPLATES["pointing"])
