"""What a training config says, as dataclasses: the one list of its keys. None has a default; an unknown one raises."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

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
class InitConfig:
    """Where some of the parameters come from when a run begins."""

    pattern: str  # regex that matches whole parameter names
    source: str  # "fresh", or "hf:…" or "orbax:…" as in train/init_from.py


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One run."""

    seed: int
    steps: int
    batch: int  # rows of the global batch
    microbatches: int  # parts of the batch that go through the model one after the other; memory holds one
    z_loss: float  # weight of logsumexp^2
    log_every: int  # steps between metric lines
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
      ConfigError: a key is unknown, missing or of the wrong type; the message names it by its whole path.
    """
    return build(TrainConfig, tree, "config")


def build(kind: Any, x: Any, path: str) -> Any:
    """`x` as a `kind`: a dataclass, dict[str, K], tuple[K, ...], K | None or a plain type. Errors name `path`."""
    container, inner = typing.get_origin(kind), typing.get_args(kind)
    if container is types.UnionType:
        return None if x is None else build(inner[0], x, path)
    if dataclasses.is_dataclass(kind) and isinstance(x, Mapping):
        kinds = typing.get_type_hints(kind)
        wrong = [f"{path}.{key} is unknown" for key in x if key not in kinds]
        wrong += [f"{path}.{key} is missing" for key in kinds if key not in x]
        if wrong:
            raise ConfigError("; ".join(wrong))
        return kind(**{key: build(kinds[key], x[key], f"{path}.{key}") for key in kinds})
    if container is dict and isinstance(x, Mapping):
        return {key: build(inner[1], value, f"{path}.{key}") for key, value in x.items()}
    if container is tuple and isinstance(x, list | tuple):  # JSON has lists only
        return tuple(build(inner[0], value, f"{path}[{i}]") for i, value in enumerate(x))
    if kind is float and type(x) is int:
        return float(x)
    if type(x) is not kind:
        raise ConfigError(f"{path} = {x!r} must be of type {kind if container else kind.__name__}")
    return x
