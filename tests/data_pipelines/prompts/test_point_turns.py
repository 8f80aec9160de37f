"""Turns with points: of one image, of several images, of a video, and inside a text answer."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import ExampleError
from data_pipelines.prompts.templates import TEMPLATES
from data_pipelines.records.annotations import InlinePoints, Points
from data_pipelines.text.points import Point, parse_points
from tests.data_pipelines.prompts.messages import PRETRAIN, SFT, TEMPLATES_ONLY, message, share, write


def points(*coordinates, label="Red Dogs", alt=None, unanswerable=None):
    return Points(label, tuple(Point(*point) for point in coordinates), alt, unanswerable)


TWO = points((1, 0.1, 0.2), (1, 0.05, 1.0))
TAG = '<points coords="1 1 050 1000 2 100 200">red dogs</points>'


@pytest.mark.parametrize(
    ("style", "answer"),
    [
        ("pointing", TAG),
        ("cosyn_point", TAG),
        ("point_count", f"Counting the {TAG} shows a total of 2."),
        ("count_then_point", f"There are 2 {TAG}."),
        ("only_count", "2"),
    ],
)
def test_points_of_an_image(style, answer):
    assert write(message(style, TWO), SFT).answer == answer
    assert write(message(style, points()), SFT).answer == "There are none."


def test_labels_of_images_are_in_lower_case_and_those_of_videos_unchanged():
    asked = {template.format(label="red dogs") for template in TEMPLATES["pointing"]}
    assert {write(message("pointing", TWO), rng=seed).user for seed in range(40)} <= asked
    turn = write(message("video_point", points((2.5, 0.5, 0.5))), times=[0, 1])
    assert turn.answer == '<points coords="2.5 1 500 500">Red Dogs</points>'
    assert "Red Dogs" in turn.user


def test_a_question_of_the_record_is_kept_and_the_label_is_in_the_tag():
    turn = write(message("pointing", TWO, question="Where are {THE} dogs?"), SFT)
    assert (turn.user, turn.answer) == ("Where are {THE} dogs?", TAG)


def test_without_templates_the_label_is_the_question():
    turn = write(message("pointing", TWO), PRETRAIN)
    assert turn.user == "pointing: red dogs"
    assert write(message("point_count", TWO, question="How many?"), PRETRAIN).user == "point_count: How many?"


@pytest.mark.parametrize(
    ("style", "answer"),
    [
        ("video_point", "{}"),
        ("video_point_count", "Counting the {} shows a total of 2."),
        ("video_count_point", "There are 2 {}."),
        ("video_count", "2"),
    ],
)
def test_points_of_a_video(style, answer):
    found = points((2.5, 0.5, 0.5), (0.0, 0.1, 0.2))
    tag = '<points coords="0.0 1 100 200;2.5 2 500 500">Red Dogs</points>'
    turn = write(message(style, found), SFT, times=[0, 1])
    assert turn.answer == answer.format(tag)
    assert turn.user in {template.format(label="Red Dogs") for template in TEMPLATES[style]}
    first = write(message(style, found), dataclasses.replace(TEMPLATES_ONLY, points_format="html-v1"), times=[0, 1])
    assert first.answer == answer.format(tag.replace(";", "\t"))


def test_what_cannot_be_counted():
    assert write(message("video_count", points(unanswerable="It is dark.")), times=[0]).answer == "It is dark."
    assert write(message("video_count", points(unanswerable="")), times=[0]).answer == "Sorry, I can't count Red Dogs."


CATS = points((1, 0.1, 0.1), (1, 0.2, 0.2), (3, 0.5, 0.5), (4, 0.9, 0.9), label="Cats")


def chosen(user):
    return [int(number) for number in re.findall(r"image_(\d)", user)]


def test_half_of_the_questions_are_about_all_images():
    asked = message("multi_image_counting", CATS)
    assert share(lambda rng: "all images" in write(asked, rng=rng, n_images=4).user) == pytest.approx(0.5, abs=0.04)
    one = message("multi_image_counting", points((1, 0.1, 0.1)))
    assert {"all images" in write(one, rng=seed, n_images=1).user for seed in range(20)} == {True}


def test_answers_point_only_in_the_images_that_the_question_lists():
    rng, listed = np.random.default_rng(0), set()
    for _ in range(300):
        turn = write(message("multi_image_pointing", CATS), rng=rng, n_images=4)
        images = chosen(turn.user)
        listed.add(tuple(images))
        wanted = [p for p in CATS.points if not images or p.key in images]
        tags = parse_points(turn.answer)
        assert [p.key for tag in tags for p in tag.points] == [p.key for p in wanted]
        assert turn.answer == "There are none." if not wanted else tags[0].label == "Cats"
    # Every subset except the empty one and all images, in order.
    assert listed == {()} | {t for t in listed if t} and len(listed) == 1 + 14
    assert all(list(images) == sorted(images) for images in listed)


def test_half_of_plain_pointing_in_all_images_is_worded_as_for_one():
    one = {template.format(label="Cats") for template in TEMPLATES["pointing"]}
    pointing = message("multi_image_pointing", CATS)
    assert share(lambda rng: write(pointing, rng=rng, n_images=4).user in one) == pytest.approx(0.25, abs=0.03)
    counting = message("multi_image_point_then_count", CATS)
    assert share(lambda rng: write(counting, rng=rng, n_images=4).user in one, 200) == 0


def test_a_question_of_the_record_is_about_all_images():
    turn = write(message("multi_image_point_then_count", CATS, question="How many?"), SFT, n_images=4)
    assert turn.user == "How many?" and turn.answer.endswith("shows a total of 4.")


def test_points_in_images_that_do_not_exist_raise():
    with pytest.raises(
        ExampleError, match=r"style 'multi_image_counting': points in images \[3, 4\], but the example has 2"
    ) as caught:
        write(message("multi_image_counting", CATS), n_images=2)
    assert caught.value.reason == "bad_record"


def inline(text, *found, style="user_qa"):
    return message(style, InlinePoints(text, found), question="Open?")


def test_points_inside_a_text_answer():
    valve, handle = points((1, 0.5, 0.5), label="this", alt="a Valve"), points((1, 0, 0), label="{that}")
    turn = write(inline("Yes, by <|POINT|>, not <|POINT|>.", valve, handle), SFT)
    assert turn.user == "Open?"
    assert turn.answer == (
        'Yes, by <points alt="a Valve" coords="1 1 500 500">this</points>, '
        'not <points coords="1 1 000 000">{that}</points>.'
    )


@pytest.mark.parametrize(
    ("text", "found", "reason"),
    [
        ("Yes, <|POINT|>", (), "bad_record"),
        ("Yes", (TWO,), "bad_record"),
        ("<|POINT|>", (points(),), "unwritable"),
        ("<|POINT|>", (points((1, 0, 0), alt='"'),), "unwritable"),
    ],
)
def test_marks_that_do_not_match_the_points_raise(text, found, reason):
    with pytest.raises(ExampleError, match="style 'user_qa': ") as caught:
        write(inline(text, *found))
    assert caught.value.reason == reason


@pytest.mark.parametrize("label", ["a <points b", "</tracks>"])
def test_labels_that_no_tag_can_hold_raise(label):
    with pytest.raises(ExampleError, match="style 'pointing': label") as caught:
        write(message("pointing", points((1, 0, 0), label=label)))
    assert caught.value.reason == "unwritable"


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1), st.floats(0, 1)), max_size=5),
    st.text("{}<|>ab %s", min_size=1, max_size=8),
    st.integers(0, 2**32),
)
def test_any_points_are_read_back(coordinates, label, seed):
    turn = write(message("multi_image_point_then_count", points(*coordinates, label=label)), rng=seed, n_images=4)
    images = chosen(turn.user) or [1, 2, 3, 4]
    assert label in turn.user
    found = [(p.key, p.x, p.y) for tag in parse_points(turn.answer) for p in tag.points]
    assert sorted(found) == sorted(
        (k, round(x * 1000) / 1000, round(y * 1000) / 1000) for k, x, y in coordinates if k in images
    )
