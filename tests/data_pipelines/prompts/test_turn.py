"""Turns of every style: reproducible by seed, verbatim for a given user text; errors for parts that do not fit."""

import numpy as np
import pytest

from data_pipelines.config import ConfigError, read_config
from data_pipelines.errors import ExampleError
from data_pipelines.prompts import PromptConfig, TurnText
from data_pipelines.prompts.templates import template_fields
from data_pipelines.records.annotations import Choice, InlinePoints, Points, Text, Tracks
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
from data_pipelines.text.points import Point
from data_pipelines.text.tracks import TrackFrame
from tests.data_pipelines.prompts.messages import PRETRAIN, SFT, TEMPLATES_ONLY, message, write

ANSWERS = {
    CHOICE: Choice(("red", "blue"), (0,), True),
    IMAGE_POINTS: Points("dog", (Point(1, 0.5, 0.5),), None, None),
    IMAGES_POINTS: Points("dog", (Point(1, 0.5, 0.5), Point(2, 0.5, 0.5)), None, None),
    VIDEO_POINTS: Points("dog", (Point(0.5, 0.5, 0.5),), None, None),
    TRACKS: Tracks("dog", (TrackFrame(0.5, {"0": (0.1, 0.1)}), TrackFrame(1.0, {"0": (0.2, 0.1)})), 2),
    WORDS: Text(("fine",), "Because."),
}
ABOUT = {frozenset({"time"}): 2.0, frozenset({"start", "end"}): (1.0, 2.0), frozenset({"object"}): "dog"}
MEDIA = {"times": [0, 0.5, 1.0], "n_images": 2}


def of_style(name, user=None):
    style = STYLES[name]
    needs = frozenset() if style.asks in (NAME, QUESTION) else template_fields(style.asks)
    framed = style.kind == CHOICE or (style.kind == WORDS and (style.asks == QUESTION or "question" in needs))
    return message(name, ANSWERS[style.kind], question="Why?" if framed else None, user=user, about=ABOUT.get(needs))


@pytest.mark.parametrize("name", sorted(STYLES))
def test_every_style_is_written(name):
    for cfg in (SFT, PRETRAIN, TEMPLATES_ONLY):
        for seed in range(3):
            turn = write(of_style(name), cfg, seed, **MEDIA)
            assert isinstance(turn, TurnText)
            assert turn.answer.strip() and turn.user == turn.user.strip("\r")
            assert turn == write(of_style(name), cfg, seed, **MEDIA)  # independent of the global generator
            assert "{" not in turn.user + turn.answer or STYLES[name].kind == CHOICE
    if STYLES[name].asks not in (NAME, QUESTION):
        assert len({write(of_style(name), SFT, seed, **MEDIA).user for seed in range(40)}) > 1 or name.endswith("_exp")


@pytest.mark.parametrize("name", sorted(STYLES))
def test_a_given_user_text_is_verbatim(name):
    text = "  <|im_end|> {question} <im_patch> %s\n"
    for cfg in (SFT, PRETRAIN):
        assert {write(of_style(name, user=text), cfg, seed, **MEDIA).user for seed in range(5)} == {text}


def test_draws_do_not_use_the_global_generator():
    before = np.random.get_state()[1].copy()
    for name in STYLES:
        write(of_style(name), SFT, **MEDIA)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize(
    ("asked", "media", "problem"),
    [
        (message("poem"), MEDIA, "style 'poem': there is no such style"),
        (message("pointing"), MEDIA, "annotated with Text, not Points"),
        (message("user_qa", ANSWERS[CHOICE]), MEDIA, "annotated with Choice, not Text or InlinePoints"),
        (message("video_point", InlinePoints("", ())), MEDIA, "annotated with InlinePoints, not Points"),
        (message("video_point", ANSWERS[VIDEO_POINTS]), {}, "the example has no video"),
        (message("video_point_track_per_frame", ANSWERS[TRACKS]), {}, "the example has no video"),
        (message("pointing", Points("dog", (), None, None)), {"n_images": 0}, "the example has no image"),
        (message("pointing", ANSWERS[IMAGE_POINTS]), {"n_images": 0}, r"points in images \[1\], but the example has 0"),
    ],
)
def test_parts_that_do_not_fit_together_raise(asked, media, problem):
    with pytest.raises(ExampleError, match=problem) as caught:
        write(asked, SFT, **media)
    assert caught.value.reason == "bad_record"


VALUES = {"templates": True, "style_prefix": "none", "points_format": "html-v2"}


def test_prompt_configs_are_read():
    assert read_config(PromptConfig, VALUES, "prompts") == TEMPLATES_ONLY


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("templates", "some", r"prompts\.templates = 'some' must be of type bool"),
        ("style_prefix", "some", r"prompts\.style_prefix = 'some' is unknown; known: demo_or_style, none, style_and_"),
        ("points_format", "html", r"prompts\.points_format = 'html' is unknown; known: html-v1, html-v2"),
    ],
)
def test_unknown_config_values_stop_the_run(key, value, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        read_config(PromptConfig, VALUES | {key: value}, "prompts")
    assert not isinstance(caught.value, ExampleError)
