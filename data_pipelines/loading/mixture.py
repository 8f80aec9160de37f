"""Mixtures: how often each dataset is drawn.

Groups have fixed rates, which are scaled to sum to one. Within a group, a dataset's share is proportional to the square
root of its number of examples, or of a size that the config names. Two groups of rates 0.6 and 0.2, with datasets of
400, 100 and 90,000 examples:

    group     dataset   examples   root   in group   overall
    talk      a              400     20     66.7 %    50.0 %     0.6 / (0.6 + 0.2) * 20 / (20 + 10)
    talk      b              100     10     33.3 %    25.0 %
    point     c           90,000    300    100.0 %    25.0 %
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated

from data_pipelines.config import OneOf, at_least, between, more_than


class MixtureError(ValueError):
    """A mixture from which nothing can be drawn; the message names the group or dataset."""


MISSING = ("stop", "report")


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """One dataset of a mixture."""

    source: str  # a JSON-lines file of records, or the folder of a prepared dataset
    # Its share of the group is proportional to sqrt(size). None: its number of examples; below 1: this share of them;
    # from 1 on: this number, whatever it has; 0: its share does not depend on its size.
    size: Annotated[float, at_least(0)] | None
    rate: Annotated[float, more_than(0)]  # factor on its share of the group, before normalisation
    weight: Annotated[float, more_than(0)] | None  # loss weight of each answer token; None: by style
    high_res: Annotated[float, between(0, 1)]  # probability that an image gets up to high_res_crops crops


@dataclasses.dataclass(frozen=True)
class MixtureGroup:
    """Datasets that share a rate. The rates of all groups are scaled to sum to 1."""

    rate: Annotated[float, more_than(0)]
    datasets: dict[str, DatasetConfig]


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
    """Which datasets are drawn, and how often."""

    groups: dict[str, MixtureGroup]
    missing: Annotated[str, OneOf(MISSING)]  # for a missing dataset: "stop", or "report" it and train without it


def draw_rates(mixture: Mapping[str, MixtureGroup], lengths: Mapping[str, int | None]) -> dict[str, float]:
    """The share of each dataset in all draws; the shares sum to 1.

    Args:
      lengths: number of examples by dataset, None for a missing one. Missing datasets are not drawn: the others are
        drawn as if the config did not name them.

    Raises:
      MixtureError: no dataset exists, a name is in two groups, or a dataset or group is empty.
    """
    _check_groups(mixture, lengths)
    present = {g: [d for d in group.datasets if lengths[d] is not None] for g, group in mixture.items()}
    found = _normalised_shares(mixture, {g: names for g, names in present.items() if names}, lengths)
    if not found:
        raise MixtureError(f"no dataset of the mixture exists; it names {sorted(lengths)}")
    return found


def configured_shares(
    mixture: Mapping[str, MixtureGroup], lengths: Mapping[str, int | None]
) -> dict[str, float | None]:
    """What `draw_rates` would be if no dataset were missing; None in a group with a dataset whose size is unknown."""
    _check_groups(mixture, lengths)
    every = {g: list(group.datasets) for g, group in mixture.items()}
    return _normalised_shares(mixture, every, lengths)


def _normalised_shares(mixture: Mapping[str, MixtureGroup], names: Mapping[str, list[str]], lengths: Mapping) -> dict:
    total = math.fsum(mixture[g].rate for g in names)
    found = {}
    for g, members in names.items():
        factors = [_group_factor(mixture[g].datasets[name], lengths[name]) for name in members]
        factors = [1.0] if len(members) == 1 else factors  # the size of a group's only dataset does not matter
        for name, factor in zip(members, factors, strict=True):
            found[name] = None if None in factors else mixture[g].rate / total * factor / math.fsum(factors)
    return found


def _group_factor(dataset: DatasetConfig, length: int | None) -> float | None:
    """A dataset's share of its group before normalisation; None where it depends on an unknown length."""
    size = dataset.size
    if size == 0:
        return dataset.rate
    if size is not None and size >= 1:
        return dataset.rate * math.sqrt(size)
    if length is None:
        return None
    return dataset.rate * math.sqrt(length if size is None else length * size)


def _check_groups(mixture: Mapping[str, MixtureGroup], lengths: Mapping[str, int | None]) -> None:
    wrong, seen = [], {}
    for g, group in mixture.items():
        if not group.datasets:
            wrong.append(f"group {g} names no dataset")
        for name in group.datasets:
            if name in seen:
                wrong.append(f"dataset {name} is in groups {seen[name]} and {g}")
            seen[name] = g
            if lengths[name] is not None and lengths[name] < 1:
                wrong.append(f"dataset {name} has no examples")
    if wrong:
        raise MixtureError("; ".join(wrong))


def mixture_table(mixture: Mapping[str, MixtureGroup], lengths: Mapping[str, int | None]) -> str:
    """The mixture as text: each dataset's share by the config ("configured"), and its share of the draws ("drawn").

    group  dataset  examples               in group  configured    drawn  weight
    talk                                                75.000%  75.000%
           a        400                           ?           ?  75.000%  by style
           b        missing, size unknown         ?           ?        -  0.2
    point                                               25.000%  25.000%
           c        90,000                 100.000%     25.000%  25.000%  by style
    1 of 3 datasets is missing and not drawn, the others take its share: b
    """
    configured = configured_shares(mixture, lengths)
    drawn = draw_rates(mixture, lengths) if any(lengths[d] is not None for d in configured) else {}
    total = math.fsum(group.rate for group in mixture.values())
    rows = [("group", "dataset", "examples", "in group", "configured", "drawn", "weight")]
    for g, group in mixture.items():
        part = group.rate / total
        rows.append((g, "", "", "", f"{part:.3%}", f"{math.fsum(drawn.get(d, 0.0) for d in group.datasets):.3%}", ""))
        for name, dataset in group.datasets.items():
            share = configured[name]
            rows.append(
                (
                    "",
                    name,
                    _size_text(dataset, lengths[name]),
                    "?" if share is None else f"{share / part:.3%}",
                    "?" if share is None else f"{share:.3%}",
                    f"{drawn[name]:.3%}" if name in drawn else "-",
                    "by style" if dataset.weight is None else f"{dataset.weight:g}",
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[f"{cell:{'>' if 3 <= i <= 5 else '<'}{widths[i]}}" for i, cell in enumerate(row)] for row in rows]
    lines = ["  ".join(row).rstrip() for row in aligned]
    missing = [name for name in configured if name not in drawn]
    if missing:
        what, whose = ("is missing", "its") if len(missing) == 1 else ("are missing", "their")
        then = f"not drawn, the others take {whose} share" if drawn else "nothing can be drawn"
        lines.append(f"{len(missing)} of {len(configured)} datasets {what} and {then}: {', '.join(missing)}")
    return "\n".join(lines)


def _size_text(dataset: DatasetConfig, length: int | None) -> str:
    if length is None:
        needs_length = dataset.size is None or 0 < dataset.size < 1
        return "missing, size unknown" if needs_length else "missing"
    return f"{length:,}"
