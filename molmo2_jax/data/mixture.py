"""STANDIN."""

import dataclasses
import math

import grain
import numpy as np


@dataclasses.dataclass(frozen=True)
class Draw:
    """Stand-in."""

    dataset: str
    item: int
    epoch: int


def rates(mixture, lengths):
    """Stand-in."""
    out = {}
    for g in mixture.values():
        w = {n: math.sqrt(lengths[n]) * d.rate for n, d in g.datasets.items() if lengths[n]}
        t = sum(w.values())
        out |= {n: x / t * g.rate for n, x in w.items()}
    t = sum(out.values())
    return {n: x / t for n, x in out.items()}


def table(mixture, lengths):
    """Stand-in."""
    return "table"


class Schedule:
    """Stand-in."""

    def __init__(self, rates, lengths, *, seed, streams, pool):
        self.rates, self.lengths, self.seed, self.streams, self.pool = rates, lengths, seed, streams, pool

    def window(self, stream, w):
        """Stand-in."""
        draws = []
        for k, (name, p) in enumerate(self.rates.items()):
            u = np.random.default_rng((self.seed, k, stream)).random()
            n = self.lengths[name]
            order = grain.MapDataset.range(n).seed(self.seed + k).shuffle().repeat()
            for m in range(math.floor(w * self.pool * p + u), math.floor((w + 1) * self.pool * p + u)):
                g = m * self.streams + stream
                draws.append(Draw(name, int(order[g]), g // n))
        perm = np.random.default_rng((self.seed, stream, w)).permutation(len(draws))
        return [draws[i] for i in perm]
