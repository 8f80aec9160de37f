"""Style prefixes as exact texts."""

import numpy as np
import pytest

from data_pipelines.config import ConfigError, read_config
from data_pipelines.prompts import PromptConfig
from data_pipelines.prompts.style_prefix import STYLE_PREFIXES, add_prefix, style_prefix
from tests.data_pipelines.prompts.messages import PRETRAIN, SFT, message, share, write


class FixedDraws:
    """A generator whose draws are given."""

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
    assert style_prefix("long_caption", "x" * characters, "style_and_length", FixedDraws(0.5, noise)) == prefix


def test_a_tenth_of_prefixes_has_no_length():
    def without(rng):
        return style_prefix("transcript", "x" * 300, "style_and_length", rng) == "transcript:"

    assert share(without) == pytest.approx(0.1, abs=0.03)
    assert style_prefix("text_sft", "x", "style_and_length", FixedDraws(0.09)) == "text_sft:"


def test_length_noise_is_25_characters():
    rng = np.random.default_rng(0)
    prefixes = [style_prefix("text_sft", "x" * 1500, "style_and_length", rng) for _ in range(3000)]
    lengths = [15 * int(prefix[len("text_sft ") : -1]) for prefix in prefixes if prefix != "text_sft:"]
    assert np.mean(lengths) == pytest.approx(1500 - 7, abs=3)
    assert np.std(lengths) == pytest.approx(np.hypot(25, 15 / np.sqrt(12)), abs=1.5)


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


def test_mode_none_has_no_prefix():
    assert style_prefix("vqa2", "x", "none", np.random.default_rng(0)) == ""


def test_the_modes_are_those_that_a_config_accepts():
    for mode in STYLE_PREFIXES:
        values = {"templates": True, "style_prefix": mode, "points_format": "html-v2"}
        assert read_config(PromptConfig, values, "prompts").style_prefix == mode
    with pytest.raises(ConfigError, match=r"prompts\.style_prefix = 'style' is unknown"):
        read_config(PromptConfig, values | {"style_prefix": "style"}, "prompts")


def test_prefix_and_text_are_joined_by_a_space():
    assert [add_prefix("a:", "b"), add_prefix("a:", ""), add_prefix("", "b")] == ["a: b", "a:", "b"]


def test_only_first_turns_have_a_prefix():
    asked = message("vqa2", question="Open?")
    assert write(asked, SFT).user == "vqa2: Open?"
    assert write(asked, SFT, first=False).user == "Open?"
    assert write(message("vqa2", user="Open?"), SFT).user == "Open?"
    assert write(message("video_merged_caption"), SFT).user == "video_merged_caption:"
    assert write(message("long_caption"), PRETRAIN, 1).user.startswith("long_caption ")
