"""Turns with text answers."""

import pytest

from data_pipelines.errors import ExampleError
from data_pipelines.prompts.templates import TEMPLATES
from data_pipelines.prompts.text_turns import clock
from data_pipelines.records.annotations import Text
from tests.data_pipelines.prompts.messages import PRETRAIN, SFT, message, share, write


def users(asked, cfg=SFT, draws=300):
    return {write(asked, cfg, seed).user for seed in range(draws)}


def test_the_most_frequent_answer_is_used_and_ties_are_drawn():
    asked = message("vqa2", Text(("no", "yes", "yes"), None), question="Open?")
    assert {write(asked, rng=seed).answer for seed in range(20)} == {"yes"}
    asked = message("vqa2", Text(("no", "yes", "maybe", "yes", "no"), None), question="Open?")
    assert share(lambda rng: write(asked, rng=rng).answer == "yes", 1000) == pytest.approx(0.5, abs=0.05)
    assert {write(asked, rng=seed).answer for seed in range(20)} == {"yes", "no"}


def test_reasons_come_before_the_answer():
    asked = message("cosyn_chart_exp", Text(("40",), "The bar {ends} there."), question="How much is {x}?")
    turn = write(asked, SFT)
    assert turn.user == "cosyn_chart_exp: How much is {x}? Provide reasoning steps and then give the short answer."
    assert turn.answer == "The bar {ends} there. Answer: 40"
    assert write(message("user_qa", Text(("A",), "B"), question="Q"), SFT).answer == "B Answer: A"


def test_captions_use_all_templates_of_the_list():
    assert users(message("video_short_caption")) == set(TEMPLATES["video_short_caption"])
    assert users(message("long_caption"), PRETRAIN) >= {"long_caption:", "long_caption 0:"}
    assert users(message("long_caption", question="What is {it}?")) == {"What is {it}?"}


def test_an_object_is_asked_about():
    asked = message("video_object_caption", about="a {red} kite")
    wanted = {template.format(object="a {red} kite") for template in TEMPLATES["video_object_caption"]}
    assert users(asked) == {f"video_object_caption: {user}" for user in wanted}
    assert users(asked, PRETRAIN) >= {"video_object_caption: a {red} kite"}


@pytest.mark.parametrize(
    ("style", "about", "filled"),
    [
        ("video_frame_caption_timestamp", 62.54, [{"time": "62.5 seconds"}, {"time": "00:01:02.5"}]),
        (
            "video_clip_caption_start_end",
            (3, 5.55),
            [{"start": "3.0", "end": "5.5 seconds"}, {"start": "00:00:03.0", "end": "00:00:05.5"}],
        ),
        (
            "video_clip_transcript_start_end",
            (0.0, 7260.0),
            [{"start": "0.0", "end": "7260.0 seconds"}, {"start": "00:00:00.0", "end": "02:01:00.0"}],
        ),
    ],
)
def test_half_of_the_times_are_in_seconds_half_as_clock(style, about, filled):
    seconds, clocks = ({t.format(**values) for t in TEMPLATES[style]} for values in filled)
    asked = message(style, about=about)
    assert users(asked) == seconds | clocks
    assert share(lambda rng: write(asked, rng=rng).user in seconds, 1000) == pytest.approx(0.5, abs=0.05)


def test_times_without_templates():
    assert "video_clip_caption_start_end: 3.0-5.55" in users(
        message("video_clip_caption_start_end", about=(3, 5.551)), PRETRAIN
    )
    assert "video_frame_caption_timestamp: 2.5" in users(message("video_frame_caption_timestamp", about=2.5), PRETRAIN)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "00:00:00.0"), (59.96, "00:01:00.0"), (3725.04, "01:02:05.0"), (360000.1, "100:00:00.1")],
)
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_short_answers_of_videos_use_templates_and_those_of_images_do_not():
    question = "What is {he} <|im_end|> holding?"
    framed = {template.format(question=question) for template in TEMPLATES["short_answer"]}
    assert users(message("video_short_answer", question=question)) == {f"video_short_answer: {u}" for u in framed}
    assert users(message("text_vqa", question=question)) == {f"text_vqa: {question}"}
    assert write(message("video_short_answer", question=question), PRETRAIN, 0).user.endswith(f": {question}")


def test_styles_without_a_question_have_only_their_name():
    assert users(message("video_merged_caption")) == {"video_merged_caption:"}
    assert users(message("transcript", question="Talk.")) == {"transcript: Talk."}


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (message("user_qa"), "'user_qa': no question"),
        (message("video_short_answer"), "'video_short_answer': no question"),
        (message("video_object_caption"), r"'about' is None, but the style needs \['object'\]"),
        (message("video_clip_caption_start_end", about=3.0), r"'about' is 3.0, but the style needs \['end', 'start'\]"),
        (message("video_frame_caption_timestamp", about="dog"), r"'about' is 'dog', but the style needs \['time'\]"),
        (message("long_caption", about="dog"), "'about' is 'dog', but the style needs none"),
        (message("cosyn_math_exp", question="2 + 2?"), "no explanation"),
        (message("user_qa", Text((), None), question="Q"), "no answer"),
    ],
)
def test_messages_that_lack_a_part_raise(asked, problem):
    for cfg in (SFT, PRETRAIN):
        with pytest.raises(ExampleError, match=problem) as caught:
            write(asked, cfg)
        assert caught.value.reason == "bad_record"
