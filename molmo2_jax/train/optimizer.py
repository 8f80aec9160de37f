"""AdamW with a learning-rate schedule and a gradient clip per parameter group (public reference, olmo/train/optim.py).

learning rate   linear warm-up from 0 to the group's peak, then cosine down to `end_lr` times the peak
clipping        by the global norm of the group's own gradient
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
import optax

from data_pipelines.config import at_least, between, more_than
from molmo2_jax.train.parameter_groups import FROZEN, GroupConfig


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW and its groups."""

    groups: dict[str, GroupConfig]
    frozen: str  # regex of parameters that keep their values
    b1: Annotated[float, between(0, 1)]
    b2: Annotated[float, between(0, 1)]
    eps: Annotated[float, more_than(0)]
    weight_decay: Annotated[float, at_least(0)]
    clip: Annotated[float, more_than(0)]  # maximum global norm of a group's gradient
    end_lr: Annotated[float, between(0, 1)]  # learning rate after the last step, as a share of the peak


def schedule(group: GroupConfig, steps: int, end_lr: float) -> optax.Schedule:
    """Learning rate of update number `count` (from 0). The first update uses lr/warmup, as in the reference."""

    def lr(count: jax.typing.ArrayLike) -> jax.Array:
        step = count + 1.0
        warm = step / max(group.warmup, 1)
        done = jnp.clip((step - group.warmup) / max(steps - group.warmup, 1), 0.0, 1.0)
        cosine = end_lr + (1.0 - end_lr) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        return group.lr * jnp.where(step < group.warmup, warm, cosine)

    return lr


def schedules(c: OptimConfig, steps: int) -> dict[str, optax.Schedule]:
    """The learning-rate schedule of each group."""
    return {name: schedule(group, steps, c.end_lr) for name, group in c.groups.items()}


def make_optimizer(c: OptimConfig, assigned: Mapping[str, str], steps: int) -> optax.GradientTransformation:
    """The optimizer of the trainable parameters, a flat dict without the frozen ones."""

    def group_optimizer(lr: optax.Schedule) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(c.clip),
            optax.adamw(lr, b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=c.weight_decay),
        )

    labels = {name: group for name, group in assigned.items() if group != FROZEN}
    return optax.partition({name: group_optimizer(lr) for name, lr in schedules(c, steps).items()}, labels)
