"""Messages for tests: one with what a test names, turned into its texts."""

import dataclasses

import numpy as np

from molmo2_jax.data.annotations import Message, Text
from molmo2_jax.data.prompts import Written, write_turn

SHORT = Text(("yes",), None)


@dataclasses.dataclass(frozen=True)
class Config:
    prompts: str = "templates"
    style_prefix: str = "none"
    points_format: str = "html-v2"


SFT = Config(style_prefix="demo_or_style")
PRETRAIN = Config("none", "style_and_length", "html-v1")


def message(style, answer=SHORT, *, question=None, user=None, about=None) -> Message:
    return Message(style, user, question, about, answer, 1.0, ())


def write(asked, cfg=Config(), rng=0, *, first=True, times=(), n_images=1) -> Written:
    """`asked` as a turn; `rng` a generator or a seed. Without times there is no video."""
    times = np.array(times) if len(times) else None
    return write_turn(asked, cfg, np.random.default_rng(rng), first=first, times=times, n_images=n_images)


def share(of, draws=2000) -> float:
    """How often `of(rng)` is true."""
    rng = np.random.default_rng(0)
    return sum(bool(of(rng)) for _ in range(draws)) / draws
