"""Style prefixes: a text before the first question of a conversation that tells the model which task it is.

    style_and_length    long_caption 83: Describe ...     pre-training: the style and the desired length of the answer
                        pointing: dogs                    points of an image never have a length
    demo_or_style       What is he doing?                 fine-tuning: no prefix for what people ask for (user_qa),
                        vqa2: What is he doing?           the style for all others

Source: public reference, "style_and_length_v2" and "demo_or_style_v2" (olmo/preprocessing/data_formatter.py).
"""

import numpy as np

from data_pipelines.records.styles import STYLES

STYLE_PREFIXES = ("none", "style_and_length", "demo_or_style")

NO_LENGTH_STYLES = frozenset({"pointing", "point_count", "cosyn_point"})
WITHOUT_LENGTH = 0.1  # share of prefixes without a length in the other styles, so that the style alone works too
NOISE = 25  # characters; standard deviation of the noise on the length
UNIT = 15  # characters per unit of length in the prefix


def style_prefix(style: str, answer: str, mode: str, rng: np.random.Generator) -> str:
    """The prefix for a message with this answer, "" if none; `mode` is one of STYLE_PREFIXES.

    The length is floor((characters + noise) / 15), with normal noise truncated to whole characters. It can be 0 or
    negative for a short answer.
    """
    name = STYLES[style].named_as or style
    if mode == "none":
        return ""
    if mode == "demo_or_style":
        return "" if STYLES[name].demo else f"{name}:"
    if name in NO_LENGTH_STYLES or rng.random() < WITHOUT_LENGTH:
        return f"{name}:"
    return f"{name} {(len(answer) + int(rng.normal(scale=NOISE))) // UNIT}:"


def add_prefix(prefix: str, text: str) -> str:
    """Prefix and text joined by a space; if one of them is empty, the other alone."""
    return f"{prefix} {text}" if prefix and text else prefix or text
