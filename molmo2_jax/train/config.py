"""All keys of the training config, as dataclasses. No key has a default, and an unknown key raises ConfigError."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from data_pipelines.config import at_least, read_config
from data_pipelines.loading.config import DataConfig
from molmo2_jax.models.run_config import RunConfig
from molmo2_jax.train.checkpoint import CheckpointConfig
from molmo2_jax.train.optimizer import OptimConfig
from molmo2_jax.weights.init_from import InitConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One run."""

    seed: Annotated[int, at_least(0)]
    steps: Annotated[int, at_least(1)]
    batch: Annotated[int, at_least(1)]  # rows of the global batch
    microbatches: Annotated[int, at_least(1)]  # parts of the batch that the model processes one after the other
    z_loss: Annotated[float, at_least(0)]  # weight of logsumexp^2
    log_every: Annotated[int, at_least(1)]  # steps between metric lines
    mesh: dict[str, int]  # devices along data, fsdp, context, tensor
    compiler: dict[str, str]  # options of the step's compiler on TPUs (xla_tpu_…); elsewhere none are passed
    model: RunConfig
    data: DataConfig
    init_from: dict[str, InitConfig]
    optim: OptimConfig
    checkpoint: CheckpointConfig


def read(tree: Mapping[str, Any]) -> TrainConfig:
    """A nested mapping (ml_collections' `to_dict()`, or JSON) -> TrainConfig.

    Raises:
      ConfigError: a key is unknown, missing, of the wrong type or out of range; the message names its whole path.
    """
    return read_config(TrainConfig, tree, "config")
