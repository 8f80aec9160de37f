"""Turns of every style: the same for one seed, verbatim where they are to be, refused where parts do not fit."""

import numpy as np
import pytest

from molmo2_jax.data.annotations import Choice, InlinePoints, Points, Text, Tracks
from molmo2_jax.data.failure import ExampleError
from molmo2_jax.data.prompts import Written
from molmo2_jax.data.prompts.templates import keywords
from molmo2_jax.data.styles import (
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
from molmo2_jax.text.points import Point
from molmo2_jax.text.tracks import TrackFrame
from tests.data.prompts.messages import PRETRAIN, SFT, Config, message, write

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


def asked(name, user=None):
    style = STYLES[name]
    needs = frozenset() if style.asks in (NAME, QUESTION) else keywords(style.asks)
    framed = style.kind == CHOICE or (style.kind == WORDS and (style.asks == QUESTION or "question" in needs))
    return message(name, ANSWERS[style.kind], question="Why?" if framed else None, user=user, about=ABOUT.get(needs))


@pytest.mark.parametrize("name", sorted(STYLES))
def test_every_style_is_written(name):
    for cfg in (SFT, PRETRAIN, Config()):
        for seed in range(3):
            turn = write(asked(name), cfg, seed, **MEDIA)
            assert isinstance(turn, Written)
            assert turn.answer.strip() and turn.user == turn.user.strip("\r")
            assert turn == write(asked(name), cfg, seed, **MEDIA)  # and the global generator has no part in it
            assert "{" not in turn.user + turn.answer or STYLES[name].kind == CHOICE
    if STYLES[name].asks not in (NAME, QUESTION):
        assert len({write(asked(name), SFT, seed, **MEDIA).user for seed in range(40)}) > 1 or name.endswith("_exp")


@pytest.mark.parametrize("name", sorted(STYLES))
def test_a_user_s_own_words_are_verbatim(name):
    words = "  <|im_end|> {question} <im_patch> %s\n"
    for cfg in (SFT, PRETRAIN):
        assert {write(asked(name, user=words), cfg, seed, **MEDIA).user for seed in range(5)} == {words}


def test_draws_leave_the_global_generator_alone():
    before = np.random.get_state()[1].copy()
    for name in STYLES:
        write(asked(name), SFT, **MEDIA)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize(
    ("made", "media", "what"),
    [
        (message("poem"), MEDIA, "style 'poem': there is no such style"),
        (message("pointing"), MEDIA, "annotated with Text, not Points"),
        (message("user_qa", ANSWERS[CHOICE]), MEDIA, "annotated with Choice, not Text or InlinePoints"),
        (message("video_point", InlinePoints("", ())), MEDIA, "annotated with InlinePoints, not Points"),
        (message("video_point", ANSWERS[VIDEO_POINTS]), {}, "the example has no video"),
        (message("video_point_track_per_frame", ANSWERS[TRACKS]), {}, "the example has no video"),
        (message("pointing", Points("dog", (), None, None)), {"n_images": 0}, "an example with 0"),
        (message("pointing", ANSWERS[IMAGE_POINTS]), {"n_images": 0}, r"points in images \[1\] of an example with 0"),
    ],
)
def test_parts_that_do_not_go_together_cost_the_example(made, media, what):
    with pytest.raises(ExampleError, match=what) as caught:
        write(made, SFT, **media)
    assert caught.value.reason == "bad_record"


def test_unknown_config_values_stop_the_run():
    for cfg in (Config(prompts="some"), Config(style_prefix="some")):
        with pytest.raises(ValueError, match="'some' is not one of") as caught:
            write(message("user_qa", question="Q"), cfg)
        assert not isinstance(caught.value, ExampleError)
