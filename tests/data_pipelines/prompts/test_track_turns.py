"""Turns with tracks."""

import numpy as np
import pytest

from data_pipelines.errors import ExampleError
from data_pipelines.prompts.templates import TEMPLATES
from data_pipelines.records.annotations import Tracks
from data_pipelines.text.points import parse_points
from data_pipelines.text.tracks import TrackFrame
from tests.data_pipelines.prompts.messages import PRETRAIN, SFT, message, share, write

PER_FRAME, SINGLE = "video_point_track_per_frame", "video_single_point_track_per_frame"
START_END = "video_point_ground_start_end"
SAMPLED = np.arange(9) / 4  # 0.0, 0.25, ... 2.0


def tracks(visible, fps=2, label="The Dogs"):
    """Tracks of the visible objects by time, each at (time / 10, 0)."""
    frames = (TrackFrame(time, dict.fromkeys(names, (time / 10, 0.0))) for time, names in visible.items())
    return Tracks(label, tuple(frames), fps)


# b appears late; nothing is visible at 1.0; 0.7 is not sampled, 0.25 is sampled and not on the grid.
DOGS = tracks({0.0: "a", 0.25: "a", 0.5: "ab", 0.7: "ab", 1.0: "", 1.5: "b", 2.0: "ab"})
DOG = tracks({0.0: "", 0.5: "0", 0.75: "0", 1.0: "0", 1.5: "0", 2.0: ""}, label="The Dog")


def test_per_frame_keeps_sampled_times_on_the_grid():
    turn = write(message(PER_FRAME, DOGS), SFT, times=SAMPLED)
    coords = "0.0 1 000 000;0.5 1 050 000 2 050 000;1.5 2 150 000;2.0 1 200 000 2 200 000"
    assert turn.answer == f'<tracks coords="{coords}">The Dogs</tracks>'


def test_start_and_end_keep_sampled_times_off_the_grid_too():
    turn = write(message(START_END, DOGS), SFT, times=[0.25, 0.5, 1.0, 1.5])
    assert turn.answer == '<tracks coords="0.2 1 025 000;0.5 1 050 000 2 050 000;1.5 2 150 000">The Dogs</tracks>'


@pytest.mark.parametrize(("off", "kept"), [(0.009, True), (0.011, False)])
def test_a_time_is_shown_by_a_frame_closer_than_a_hundredth_of_a_second(off, kept):
    asked = message(START_END, tracks({1.0: "a", 2.0: "a"}))
    assert ("2.0 1" in write(asked, times=[1.0, 2.0 + off]).answer) == kept


def test_half_of_the_questions_name_the_default_rate():
    unnamed = {template.format(label="The Dogs") for template in TEMPLATES[f"{PER_FRAME}_default_fps"]}
    named = {template.format(label="The Dogs", fps="2") for template in TEMPLATES[PER_FRAME]}
    users = {write(message(PER_FRAME, DOGS), rng=seed, times=SAMPLED).user for seed in range(200)}
    assert users == unnamed | named
    default = share(lambda rng: write(message(PER_FRAME, DOGS), rng=rng, times=SAMPLED).user in unnamed, 1000)
    assert default == pytest.approx(0.5, abs=0.05)
    fast = tracks({0.0: "a", 0.25: "a"}, fps=4)
    users = {write(message(PER_FRAME, fast), rng=seed, times=SAMPLED).user for seed in range(100)}
    assert users <= {template.format(label="The Dogs", fps="4") for template in TEMPLATES[PER_FRAME]}


def test_start_and_end_prompts():
    users = {write(message(START_END, DOGS), rng=seed, times=SAMPLED).user for seed in range(80)}
    assert users == {template.format(label="The Dogs") for template in TEMPLATES[START_END]}


def test_single_points_start_at_the_query():
    rng, queries = np.random.default_rng(0), []
    for _ in range(600):
        turn = write(message(SINGLE, DOG), SFT, rng, times=SAMPLED)
        assert turn.user.startswith(f"{SINGLE}: ") and "2" in turn.user
        ((query,), (answer,)) = parse_points(turn.user), parse_points(turn.answer)
        assert (query.kind, query.label, answer.kind, answer.label) == ("points", "The Dog", "tracks", "The Dog")
        (asked,) = query.points
        queries.append(asked.key)
        assert [p.key for p in answer.points] == [
            t for t in (0.5, 1.0, 1.5) if t > {0.8: 0.75}.get(asked.key, asked.key)
        ]
    assert set(queries) == {0.5, 0.8, 1.0}  # 1.5 has nothing after it
    assert np.mean(np.array(queries) == 0.5) == pytest.approx(0.8 + 0.2 / 3, abs=0.04)


def test_a_question_of_the_record_is_about_the_first_time():
    for seed in range(30):
        turn = write(message(SINGLE, DOG, question="Track it."), SFT, seed, times=SAMPLED)
        assert turn.user == f"{SINGLE}: Track it."
        assert turn.answer == '<tracks coords="1.0 1 100 000;1.5 1 150 000">The Dog</tracks>'


def test_without_templates_the_label_or_the_query_is_the_question():
    assert write(message(PER_FRAME, DOGS, user="Go"), PRETRAIN, times=SAMPLED).user == "Go"
    bare = write(message(PER_FRAME, DOGS), PRETRAIN, 1, times=SAMPLED)
    assert bare.user.endswith(": The Dogs") and "\t" in bare.answer
    assert write(message(SINGLE, DOG), PRETRAIN, 1, times=SAMPLED).user.endswith(">The Dog</points>")


@pytest.mark.parametrize("style", [PER_FRAME, START_END])
def test_nothing_annotated_is_answered_there_are_none(style):
    turn = write(message(style, tracks({})), times=SAMPLED)
    assert turn.answer == "There are none." and "The Dogs" in turn.user


@pytest.mark.parametrize(
    ("style", "visible", "reason"),
    [
        (PER_FRAME, {0.7: "a"}, "unwritable"),  # not sampled
        (PER_FRAME, {0.25: "a"}, "unwritable"),  # not on the grid
        (PER_FRAME, {0.5: ""}, "unwritable"),
        (START_END, {0.7: "a"}, "unwritable"),
        (SINGLE, {0.5: "a"}, "unwritable"),  # nothing after the query
        (SINGLE, {0.5: "ab", 1.0: "ab"}, "bad_record"),
        (SINGLE, {}, "bad_record"),
    ],
)
def test_tracks_without_anything_visible_raise(style, visible, reason):
    with pytest.raises(ExampleError, match=f"style '{style}': ") as caught:
        write(message(style, tracks(visible)), times=SAMPLED)
    assert caught.value.reason == reason


def test_an_object_with_two_positions_at_one_time_raises():
    torn = Tracks("dog", (TrackFrame(0.5, {"a": (0, 0)}), TrackFrame(0.5, {"a": (1, 1)})), 2)
    for style in (PER_FRAME, START_END):
        with pytest.raises(ExampleError, match="two positions") as caught:
            write(message(style, torn), times=SAMPLED)
        assert caught.value.reason == "unwritable"
