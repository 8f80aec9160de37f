"""Mixtures: how often each dataset is drawn, and which of its examples when.

Rates. A dataset counts by the square root of its examples, or of a size the config names, within its group; groups have
fixed rates, which are scaled to sum to one. Two groups of rates 0.6 and 0.2, with datasets of 400, 100 and 90,000:

    group     dataset   examples   root   in group   overall
    talk      a              400     20     66.7 %    50.0 %     0.6 / (0.6 + 0.2) * 20 / (20 + 10)
    talk      b              100     10     33.3 %    25.0 %
    point     c           90,000    300    100.0 %    25.0 %

Draws. Nothing is drawn by chance but orders: window w of a stream takes of each dataset the examples that its rate lets
fall due, so that shares do not drift and no counter needs saving. Dataset c, rate 0.25, windows of 10, two streams:

    window         0      1        2        3              the number due at its start: floor(w * 10 * 0.25 + u)
    number         0 1    2 3 4    5 6      7 8 9          stream 0, u = 0.4, drawn for each dataset and stream
    of all         0 2    4 6 8    10 12    14 16 18       stream 1 has the odd ones
    epoch          0 0    1 1 2    2 3      3 4 4          c has 4 examples, in a new order every epoch
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import grain
import numpy as np

OFFSET, ORDER, PERMUTATION = 0, 1, 2  # what a seed is for: spawn keys that keep its generators apart


class MixtureError(ValueError):
    """A mixture that nothing can be drawn from; the message names group or dataset."""


class Dataset(Protocol):
    """What a mixture says about one dataset.

    `size`: None for its number of examples, 0 to take no size into account, below 1 a share of its examples, from 1 on
    the number to count with. `rate` multiplies its share of the group. `weight` replaces the weight of its tokens.
    """

    size: float | None
    rate: float
    weight: float | None


class Group(Protocol):
    """Datasets that share `rate`."""

    rate: float
    datasets: Mapping[str, Dataset]


def rates(mixture: Mapping[str, Group], lengths: Mapping[str, int | None]) -> dict[str, float]:
    """How often each dataset is drawn; the rates sum to 1.

    `lengths`: examples by dataset, None for one that is missing. Those are not drawn: the rates of the others are as if
    the config did not name them. Raises MixtureError when none is left, and for a name in two groups, a rate that is
    not positive or a dataset without examples.
    """
    _check(mixture, lengths)
    present = {g: [d for d in group.datasets if lengths[d] is not None] for g, group in mixture.items()}
    found = _shares(mixture, {g: names for g, names in present.items() if names}, lengths)
    if not found:
        raise MixtureError(f"no dataset of the mixture is there; it names {sorted(lengths)}")
    return found


def shares(mixture: Mapping[str, Group], lengths: Mapping[str, int | None]) -> dict[str, float | None]:
    """What `rates` would be if nothing was missing; None in a group with a dataset whose size is unknown."""
    _check(mixture, lengths)
    every = {g: list(group.datasets) for g, group in mixture.items()}
    return _shares(mixture, every, lengths)


def _shares(mixture: Mapping[str, Group], names: Mapping[str, list[str]], lengths: Mapping) -> dict:
    total = math.fsum(mixture[g].rate for g in names)
    found = {}
    for g, members in names.items():
        counted = [_counted(mixture[g].datasets[name], lengths[name]) for name in members]
        counted = [1.0] if len(members) == 1 else counted  # alone in its group, its size does not matter
        for name, one in zip(members, counted, strict=True):
            found[name] = None if None in counted else mixture[g].rate / total * one / math.fsum(counted)
    return found


def _counted(dataset: Dataset, length: int | None) -> float | None:
    """A dataset's share of its group, not normalised; None when that takes a length that is not known."""
    size = dataset.size
    if size == 0:
        return dataset.rate
    if size is not None and size >= 1:
        return dataset.rate * math.sqrt(size)
    if length is None:
        return None
    return dataset.rate * math.sqrt(length if size is None else length * size)


def _check(mixture: Mapping[str, Group], lengths: Mapping[str, int | None]) -> None:
    wrong, seen = [], {}
    for g, group in mixture.items():
        if not (group.rate > 0 and math.isfinite(group.rate)):
            wrong.append(f"group {g}: the rate is {group.rate}, it must be positive")
        if not group.datasets:
            wrong.append(f"group {g} names no dataset")
        for name, dataset in group.datasets.items():
            if name in seen:
                wrong.append(f"dataset {name} is in groups {seen[name]} and {g}")
            seen[name] = g
            if not (dataset.rate > 0 and math.isfinite(dataset.rate)):
                wrong.append(f"dataset {name}: the rate is {dataset.rate}, it must be positive")
            if dataset.size is not None and not 0 <= dataset.size < math.inf:
                wrong.append(f"dataset {name}: the size is {dataset.size}, it must be at least 0")
            if lengths[name] is not None and lengths[name] < 1:
                wrong.append(f"dataset {name} has no examples")
    if wrong:
        raise MixtureError("; ".join(wrong))


def table(mixture: Mapping[str, Group], lengths: Mapping[str, int | None]) -> str:
    """The mixture as text: each share as the config has it ("recipe"), and at which rate it is drawn.

    group  dataset  examples               in group   recipe    drawn  weight
    talk                                             75.000%  75.000%
           a        400                           ?        ?  75.000%  by length
           b        missing, size unknown         ?        ?        -  0.2
    point                                            25.000%  25.000%
           c        90,000                 100.000%  25.000%  25.000%  by length
    1 of 3 datasets missing: not drawn, the others take their share: b
    """
    recipe = shares(mixture, lengths)
    drawn = rates(mixture, lengths) if any(lengths[d] is not None for d in recipe) else {}
    total = math.fsum(group.rate for group in mixture.values())
    rows = [("group", "dataset", "examples", "in group", "recipe", "drawn", "weight")]
    for g, group in mixture.items():
        part = group.rate / total
        rows.append((g, "", "", "", f"{part:.3%}", f"{math.fsum(drawn.get(d, 0.0) for d in group.datasets):.3%}", ""))
        for name, dataset in group.datasets.items():
            share = recipe[name]
            rows.append(
                (
                    "",
                    name,
                    _examples(dataset, lengths[name]),
                    "?" if share is None else f"{share / part:.3%}",
                    "?" if share is None else f"{share:.3%}",
                    f"{drawn[name]:.3%}" if name in drawn else "-",
                    "by length" if dataset.weight is None else f"{dataset.weight:g}",
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[f"{cell:{'>' if 3 <= i <= 5 else '<'}{widths[i]}}" for i, cell in enumerate(row)] for row in rows]
    lines = ["  ".join(row).rstrip() for row in aligned]
    missing = [name for name in recipe if name not in drawn]
    if missing:
        fate = "not drawn, the others take their share" if drawn else "there is nothing to draw"
        lines.append(f"{len(missing)} of {len(recipe)} datasets missing: {fate}: {', '.join(missing)}")
    return "\n".join(lines)


def _examples(dataset: Dataset, length: int | None) -> str:
    if length is None:
        by_length = dataset.size is None or 0 < dataset.size < 1
        return "missing, size unknown" if by_length else "missing"
    return f"{length:,}"


class Draw(NamedTuple):
    """Example `item` of `dataset`, taken for the `epoch`-th time (from 0)."""

    dataset: str
    item: int
    epoch: int


class Schedule:
    """Which examples each window of each stream draws: a pure function of what it is made with.

    `rates` and `lengths`: by dataset, as of `rates()`; `streams`: rows of the global batch, which share each dataset
    and together see each example once an epoch; `pool`: draws of a window on average. Up to the start of window w a
    stream has drawn `w * pool * rate` examples of a dataset, give or take one. A window may be empty where the pool is
    small for the number of datasets.
    """

    def __init__(
        self, rates: Mapping[str, float], lengths: Mapping[str, int | None], *, seed: int, streams: int, pool: int
    ):
        self._rates, self._lengths = {name: rates[name] for name in sorted(rates)}, lengths
        self._seed, self._streams, self._pool = seed, streams, pool
        # Grain's shuffle computes the place of one index: no permutation of millions is held.
        self._orders = {
            name: grain.MapDataset.range(lengths[name])
            .shuffle(seed=int(self._sequence(PERMUTATION, *name.encode()).generate_state(1)[0]))
            .repeat()
            for name in self._rates
        }

    def window(self, stream: int, w: int) -> list[Draw]:
        """The draws of window `w` of a stream, in the order in which they are to be described."""
        draws = []
        for name, rate in self._rates.items():
            offset = self._generator(OFFSET, stream, *name.encode()).random()
            start, stop = (math.floor(at * self._pool * rate + offset) for at in (w, w + 1))
            for number in range(start, stop):
                of_all = number * self._streams + stream
                draws.append(Draw(name, int(self._orders[name][of_all]), of_all // self._lengths[name]))
        order = self._generator(ORDER, stream, w).permutation(len(draws))
        return [draws[i] for i in order]

    def _generator(self, purpose: int, *key: int) -> np.random.Generator:
        return np.random.default_rng(self._sequence(purpose, *key))

    def _sequence(self, purpose: int, *key: int) -> np.random.SeedSequence:
        return np.random.SeedSequence((self._seed, *key), spawn_key=(purpose,))
