"""AdamW in groups: each parameter belongs to exactly one group by regex, or is frozen.

Every group has its own learning rate, warm-up and gradient clip (public reference, olmo/train/optim.py): linear warm-up
from 0, cosine down to `end_lr` times the peak, clipping by the group's own global norm.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import optax

from molmo2_jax.train.patterns import sort_names

FROZEN = "frozen"


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """One group of parameters."""

    pattern: str  # regex that matches whole parameter names
    lr: float  # peak learning rate
    warmup: int  # steps from 0 to the peak


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW and its groups."""

    groups: dict[str, GroupConfig]
    frozen: str  # regex of parameters that keep their values
    b1: float
    b2: float
    eps: float
    weight_decay: float
    clip: float  # largest global norm of a group's gradient
    end_lr: float  # learning rate after the last step, as a share of the peak


def assign_groups(names: Iterable[str], c: OptimConfig) -> dict[str, str]:
    """{parameter name: group name or FROZEN}.

    Raises:
      ValueError: a parameter matches no pattern or several, a pattern matches no parameter or is none.
    """
    if FROZEN in c.groups:
        raise ValueError(f"optim.groups: {FROZEN!r} is the name of the frozen parameters (optim.frozen)")
    patterns = {FROZEN: c.frozen, **{name: group.pattern for name, group in c.groups.items()}}
    return sort_names(names, patterns, "optim", idle=(FROZEN,))


def schedule(group: GroupConfig, steps: int, end_lr: float) -> optax.Schedule:
    """Learning rate of update number `count` (from 0): the first update already uses lr/warmup, as the reference."""

    def lr(count):
        step = count + 1.0
        warm = step / max(group.warmup, 1)
        done = jnp.clip((step - group.warmup) / max(steps - group.warmup, 1), 0.0, 1.0)
        cosine = end_lr + (1.0 - end_lr) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        return group.lr * jnp.where(step < group.warmup, warm, cosine)

    return lr


def make_optimizer(c: OptimConfig, assigned: Mapping[str, str], steps: int) -> optax.GradientTransformation:
    """Optimizer of the trainable parameters: a flat dict without the frozen ones."""

    def group_optimizer(group: GroupConfig) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(c.clip),
            optax.adamw(schedule(group, steps, c.end_lr), b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=c.weight_decay),
        )

    labels = {name: group for name, group in assigned.items() if group != FROZEN}
    return optax.partition({name: group_optimizer(g) for name, g in c.groups.items()}, labels)


def group_norms(grads: Mapping[str, jax.Array], assigned: Mapping[str, str]) -> dict[str, jax.Array]:
    """Global norm of each group's gradient, before clipping."""
    groups = sorted(set(assigned.values()) - {FROZEN})
    return {g: optax.tree.norm([x for name, x in grads.items() if assigned[name] == g]) for g in groups}
