"""Style prefixes: what goes before a conversation's first question, so that a task without words of its own is known.

    style_and_length    long_caption 83: Describe ...     pre-training: the style and how long an answer is wanted
                        pointing: dogs                    ... always without a length for points of an image
    demo_or_style       What is he doing?                 fine-tuning: nothing before what people ask for (user_qa),
                        vqa2: What is he doing?           the style before the rest

Source: public reference, "style_and_length_v2" and "demo_or_style_v2" (olmo/preprocessing/data_formatter.py).
"""

import numpy as np

from molmo2_jax.data.styles import STYLES

LENGTHLESS = frozenset({"pointing", "point_count", "cosyn_point"})
WITHOUT_LENGTH = 0.1  # of the other answers, so that a style alone means something, too
NOISE = 25  # characters; standard deviation of the length that is told
UNIT = 15  # characters that one unit of the told length stands for


def style_prefix(style: str, answer: str, mode: str, rng: np.random.Generator) -> str:
    """The prefix of `mode` ("none", "style_and_length", "demo_or_style") for an answer, "" where there is none.

    The length may be 0 or negative for a short answer: floor((characters + noise) / 15), the noise normal and cut to
    whole characters. Raises ValueError for an unknown mode.
    """
    said = STYLES[style].said or style
    if mode == "none":
        return ""
    if mode == "demo_or_style":
        return "" if STYLES[said].demo else f"{said}:"
    if mode != "style_and_length":
        raise ValueError(f"style_prefix {mode!r} is not one of none, style_and_length, demo_or_style")
    if said in LENGTHLESS or rng.random() < WITHOUT_LENGTH:
        return f"{said}:"
    return f"{said} {(len(answer) + int(rng.normal(scale=NOISE))) // UNIT}:"


def put_before(prefix: str, text: str) -> str:
    """Prefix and text with a space between them, or the one that is not empty."""
    return f"{prefix} {text}" if prefix and text else prefix or text
