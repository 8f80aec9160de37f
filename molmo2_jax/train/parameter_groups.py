"""Parameter groups: each parameter belongs to exactly one group by regex, or is frozen."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated

import jax
import optax

from data_pipelines.config import at_least
from molmo2_jax.weights.patterns import assign_by_pattern

FROZEN = "frozen"


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """One group of parameters."""

    pattern: str  # regex that matches whole parameter names
    lr: Annotated[float, at_least(0)]  # peak learning rate
    warmup: Annotated[int, at_least(0)]  # steps from 0 to the peak


def assign_groups(names: Iterable[str], groups: Mapping[str, GroupConfig], frozen: str) -> dict[str, str]:
    """{parameter name: group name or FROZEN}.

    Args:
      frozen: regex of the parameters that keep their values.

    Raises:
      ValueError: a parameter matches no pattern or several, a pattern matches no parameter or is not a regex.
    """
    if FROZEN in groups:
        raise ValueError(f"optim.groups: {FROZEN!r} is the name of the frozen parameters (optim.frozen)")
    patterns = {FROZEN: frozen, **{name: group.pattern for name, group in groups.items()}}
    return assign_by_pattern(names, patterns, "optim", may_be_empty=(FROZEN,))


def group_norms(grads: Mapping[str, jax.Array], assigned: Mapping[str, str]) -> dict[str, jax.Array]:
    """Global norm of each group's gradient, before clipping."""
    groups = sorted(set(assigned.values()) - {FROZEN})
    return {g: optax.tree.norm([x for name, x in grads.items() if assigned[name] == g]) for g in groups}
