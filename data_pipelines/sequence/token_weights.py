"""Loss weights of answer tokens: longer answers and more branches weigh less per token.

    mode "length"   c / sqrt(n) / sqrt(branches)     n answer tokens of the branch with its EOS, c = length_weight
    mode "one"      1
    a flat weight   of the style (points, tracks and video captions: records/styles.py), or of the dataset

Source: arXiv 2601.10611 (c = 4; its public code has 2).
"""

import dataclasses
import math
from typing import Annotated

from data_pipelines.config import OneOf, more_than

MODES = ("length", "one")


@dataclasses.dataclass(frozen=True)
class TokenWeightConfig:
    """How the tokens of an answer are weighted in the loss."""

    mode: Annotated[str, OneOf(MODES)]  # "length": by answer length, except for styles and datasets with a flat weight
    length_weight: Annotated[float, more_than(0)]  # c of c/sqrt(n) (paper 4, public code 2)


def flat_weight(config: TokenWeightConfig, style_weight: float | None, dataset_weight: float | None) -> float | None:
    """The weight of every token of an answer, whatever its length; None where it depends on the length."""
    if dataset_weight is not None:
        return dataset_weight
    return 1.0 if config.mode == "one" else style_weight


def length_weight(targets: int, branches: int, c: float) -> float:
    """Weight of one answer target: c/sqrt(targets)/sqrt(branches).

    Args:
      targets: number of the answer's targets, including EOS.
      branches: number of turns kept of the example. At depth 1 this is the paper's count of branches; a chain of k
        answers of n tokens each gets what the paper gives one branch of k*n tokens: 1/sqrt(n)/sqrt(k) = 1/sqrt(k*n).
    """
    return c / math.sqrt(targets) / math.sqrt(branches)
