"""Messages for tests: `message` makes one from the fields that a test sets, `write` turns it into its texts."""

import numpy as np

from data_pipelines.prompts import PromptConfig, TurnText, write_turn
from data_pipelines.records.annotations import Message, Text

SHORT = Text(("yes",), None)

TEMPLATES_ONLY = PromptConfig(templates=True, style_prefix="none", points_format="html-v2")
PLAIN = PromptConfig(templates=False, style_prefix="none", points_format="html-v2")
SFT = PromptConfig(templates=True, style_prefix="demo_or_style", points_format="html-v2")
PRETRAIN = PromptConfig(templates=False, style_prefix="style_and_length", points_format="html-v1")


def message(style, answer=SHORT, *, question=None, user=None, about=None) -> Message:
    return Message(style, user, question, about, answer, 1.0, ())


def write(asked, cfg=TEMPLATES_ONLY, rng=0, *, first=True, times=(), n_images=1) -> TurnText:
    """`asked` as a turn; `rng` is a generator or a seed. Without `times` there is no video."""
    times = np.array(times) if len(times) else None
    return write_turn(asked, cfg, np.random.default_rng(rng), first=first, times=times, n_images=n_images)


def share(condition, draws=2000) -> float:
    """The share of draws for which `condition(rng)` is true."""
    rng = np.random.default_rng(0)
    return sum(bool(condition(rng)) for _ in range(draws)) / draws
