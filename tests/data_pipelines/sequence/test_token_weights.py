"""Loss weights of tokens: by length and branches, or flat by style, dataset or mode."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.config import ConfigError, read_config
from data_pipelines.records.styles import POINTING_WEIGHT, VIDEO_CAPTION_WEIGHT
from data_pipelines.sequence.message_tree import ROOT
from data_pipelines.sequence.token_weights import MODES, TokenWeightConfig, flat_weight, length_weight
from tests.data_pipelines.sequence.trees import lay_out, owners, trees, turn

LENGTH, ONE = (TokenWeightConfig(mode, 4.0) for mode in MODES)
CAR = {
    "style": "video_point",
    "user": "Point to the black car.",
    "answer": {"label": "black car", "points": [{"time": 5.54, "x": 120, "y": 136}]},
}
CAPTION = {"style": "video_long_caption", "user": "What happens?", "answer": "Two cars wait."}
COUNT = {"style": "user_qa", "user": "How many cars?", "answer": "Two cars."}


@pytest.mark.parametrize(
    ("config", "style_weight", "dataset_weight", "expected"),
    [
        (LENGTH, None, None, None),
        (LENGTH, 0.2, None, 0.2),
        (LENGTH, None, 0.25, 0.25),
        (LENGTH, 0.2, 0.25, 0.25),
        (ONE, None, None, 1.0),
        (ONE, 0.2, None, 1.0),
        (ONE, 0.2, 0.25, 0.25),
    ],
)
def test_a_dataset_s_weight_comes_before_the_mode_and_the_mode_before_the_style(
    config, style_weight, dataset_weight, expected
):
    assert flat_weight(config, style_weight, dataset_weight) == expected


@given(st.integers(1, 5000), st.integers(1, 30), st.sampled_from([2.0, 4.0]))
def test_a_chain_of_answers_weighs_as_one_branch_of_their_length(n, k, c):
    assert length_weight(1, 1, c) == c
    assert length_weight(n, k, c) == pytest.approx(length_weight(n * k, 1, c))
    assert n * length_weight(n, 1, c) == pytest.approx(c * math.sqrt(n))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "sum"}, "w.mode = 'sum' is unknown; known: length, one"),
        ({"length_weight": 0.0}, "w.length_weight = 0.0 must be more than 0"),
    ],
)
def test_settings_without_a_meaning_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        read_config(TokenWeightConfig, {"mode": "length", "length_weight": 4.0} | change, "w")


def test_a_flat_weight_replaces_length_and_branch_factors():
    got = lay_out([turn(ROOT, [5], [6, 7], 0.2), turn(ROOT, [5], [6])], n_visual=0, length_weight=4.0)
    np.testing.assert_allclose(got.loss_weights, [0] + [0.2] * 3 + [4 / math.sqrt(2) / math.sqrt(2)] * 2, rtol=1e-6)


@given(trees())
def test_the_weight_of_an_answer_grows_with_the_root_of_its_length(turns):
    got = lay_out(turns, 2, length_weight=3.0)
    owner = owners(turns, 2)
    for i, t in enumerate(turns):
        n = len(t.answer) + 1
        expected = n * 0.1 if t.flat_weight else 3.0 * math.sqrt(n) / math.sqrt(len(turns))
        assert got.loss_weights[owner == i].sum() == pytest.approx(t.factor * expected, rel=1e-5)


def weights_of(example, tokenizer, c=4.0):
    return sorted(set(example.lay_out(tokenizer, c).loss_weights.tolist()) - {0.0})


def test_weights_follow_style_length_and_branches(draw, tokenizer, data_config):
    n = len(tokenizer.encode("Two cars.")) + 1
    by_length = 4 / np.sqrt(n) / np.sqrt(2)
    got = draw(CAR, COUNT, video="bikes.mp4")
    np.testing.assert_allclose(weights_of(got, tokenizer), sorted([0.2, by_length]), rtol=1e-6)
    got = draw(CAR, COUNT | {"weight": 0.5}, video="bikes.mp4")
    np.testing.assert_allclose(weights_of(got, tokenizer), sorted([0.2, by_length / 2]), rtol=1e-6)
    # A dataset's weight replaces those of all styles and lengths; in mode "one" only it and factors of messages count.
    got = draw(CAR, COUNT, video="bikes.mp4", dataset_weight=0.25)
    np.testing.assert_allclose(weights_of(got, tokenizer), [0.25])
    one = data_config(mode="one")
    got = draw(CAR, COUNT | {"weight": 2.0}, video="bikes.mp4", config=one)
    np.testing.assert_allclose(weights_of(got, tokenizer), [1, 2])


def test_points_and_video_captions_have_the_flat_weights_of_the_recipe(draw, tokenizer):
    assert (POINTING_WEIGHT, VIDEO_CAPTION_WEIGHT) == (0.2, 0.1)
    got = draw(CAR, CAPTION, video="bikes.mp4")
    np.testing.assert_allclose(weights_of(got, tokenizer), [0.1, 0.2], rtol=1e-6)
