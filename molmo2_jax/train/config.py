"""What a training config says, as dataclasses: the one list of its keys. None has a default; an unknown one raises."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import dacite

from molmo2_jax.data.config import DataConfig
from molmo2_jax.models.config import RunConfig
from molmo2_jax.train.optim import OptimConfig


class ConfigError(ValueError):
    """A config or a flag that cannot be right; the message names the key."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save, how many to keep."""

    every: int  # steps between checkpoints
    keep: int  # newest checkpoints to keep


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One run."""

    seed: int
    steps: int
    batch: int  # rows of the global batch
    z_loss: float  # weight of logsumexp^2
    log_every: int  # steps between metric lines
    mesh: dict[str, int]  # devices along data, fsdp, context, tensor
    model: RunConfig
    data: DataConfig
    optim: OptimConfig
    checkpoint: CheckpointConfig


def read(tree: Mapping[str, Any]) -> TrainConfig:
    """A nested mapping (ml_collections' `to_dict()`, or JSON) -> TrainConfig.

    Raises:
      ConfigError: a key is unknown, missing or of the wrong type; the message names it.
    """
    hooks = {float: lambda x: float(x) if isinstance(x, int) and not isinstance(x, bool) else x}
    settings = dacite.Config(strict=True, type_hooks=hooks)
    try:
        return dacite.from_dict(TrainConfig, tree, settings)
    except dacite.UnexpectedDataError as error:
        raise ConfigError(f"config: unknown keys {sorted(error.keys)}") from error
    except dacite.DaciteFieldError as error:
        raise ConfigError(f"config.{error.field_path}: {error}") from error
