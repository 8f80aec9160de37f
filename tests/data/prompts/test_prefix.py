"""Style prefixes, letter for letter."""

import numpy as np
import pytest

from molmo2_jax.data.prompts.prefix import put_before, style_prefix
from tests.data.prompts.messages import PRETRAIN, SFT, message, share, write


class NoNoise:
    """A generator whose draws are told."""

    def __init__(self, random, normal=0.0):
        self.random, self.normal = (lambda: random), (lambda scale: normal * scale)


@pytest.mark.parametrize("style", ["pointing", "point_count", "cosyn_point"])
def test_points_of_an_image_have_no_length(style):
    assert {style_prefix(style, "x" * 99, "style_and_length", np.random.default_rng(s)) for s in range(50)} == {
        f"{style}:"
    }


@pytest.mark.parametrize(
    ("characters", "noise", "prefix"),
    [
        (1245, 0, "long_caption 83:"),
        (1259, 0, "long_caption 83:"),
        (1260, 0, "long_caption 84:"),
        (30, 0.5, "long_caption 2:"),
        (30, -0.5, "long_caption 1:"),
        (3, -1, "long_caption -2:"),
        (3, 0, "long_caption 0:"),
    ],
)
def test_length_is_in_units_of_15_characters(characters, noise, prefix):
    assert style_prefix("long_caption", "x" * characters, "style_and_length", NoNoise(0.5, noise)) == prefix


def test_a_tenth_of_lengths_is_left_out():
    def without(rng):
        return style_prefix("transcript", "x" * 300, "style_and_length", rng) == "transcript:"

    assert share(without) == pytest.approx(0.1, abs=0.03)
    assert style_prefix("text_sft", "x", "style_and_length", NoNoise(0.09)) == "text_sft:"


def test_length_noise_is_25_characters():
    rng = np.random.default_rng(0)
    prefixes = [style_prefix("text_sft", "x" * 1500, "style_and_length", rng) for _ in range(3000)]
    told = [15 * int(prefix[len("text_sft ") : -1]) for prefix in prefixes if prefix != "text_sft:"]
    assert np.mean(told) == pytest.approx(1500 - 7, abs=3)
    assert np.std(told) == pytest.approx(np.hypot(25, 15 / np.sqrt(12)), abs=1.5)


@pytest.mark.parametrize(
    ("style", "prefix"),
    [
        ("vqa2", "vqa2:"),
        ("video_short_answer", "video_short_answer:"),
        ("video_merged_caption", "video_merged_caption:"),
        ("video_point_ground_start_end", "video_point_ground_start_end:"),
        ("user_qa", ""),
        ("video_long_caption", ""),
        ("video_multiple_choice", ""),
        ("science_qa", ""),
        ("eval_short_answer", "vqa2:"),
        ("video_eval_short_answer", "video_short_answer:"),
        ("video_short_answer_count_without_pointing", "video_short_answer:"),
        ("eval_multiple_choice", ""),
        ("video_eval_multiple_choice_w_subtitle", ""),
        ("eval_multi_image_mc", ""),
    ],
)
def test_demo_styles_have_no_prefix(style, prefix):
    assert style_prefix(style, "x" * 99, "demo_or_style", np.random.default_rng(0)) == prefix


def test_no_prefix_where_none_is_wanted_and_none_unknown():
    assert style_prefix("vqa2", "x", "none", np.random.default_rng(0)) == ""
    with pytest.raises(ValueError, match="'style' is not one of"):
        style_prefix("vqa2", "x", "style", np.random.default_rng(0))


def test_a_space_stands_between_prefix_and_text():
    assert [put_before("a:", "b"), put_before("a:", ""), put_before("", "b")] == ["a: b", "a:", "b"]


def test_turns_have_it_first():
    asked = message("vqa2", question="Open?")
    assert write(asked, SFT).user == "vqa2: Open?"
    assert write(asked, SFT, first=False).user == "Open?"
    assert write(message("vqa2", user="Open?"), SFT).user == "Open?"
    assert write(message("video_merged_caption"), SFT).user == "video_merged_caption:"
    assert write(message("long_caption"), PRETRAIN, 1).user.startswith("long_caption ")
