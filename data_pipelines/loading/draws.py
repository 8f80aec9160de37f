"""Which examples each window of each stream draws, and in which order.

Only orders are random. Window w of a stream draws as many examples of a dataset as are due by its rate, so that shares
do not drift and no counters are saved. Dataset c of rate 0.25, windows of 10 draws, two streams:

    window         0      1        2        3              numbers start at floor(w * 10 * 0.25 + u)
    number         0 1    2 3 4    5 6      7 8 9          in stream 0; u = 0.4 is drawn per dataset and stream
    of all         0 2    4 6 8    10 12    14 16 18       stream 1 has the odd numbers
    epoch          0 0    1 1 2    2 3      3 4 4          c has 4 examples, in a new order every epoch
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import grain
import numpy as np

OFFSET, ORDER, PERMUTATION = 0, 1, 2  # spawn keys: independent generators of one seed


class Draw(NamedTuple):
    """Example `item` of `dataset`, taken for the `epoch`-th time (from 0)."""

    dataset: str
    item: int
    epoch: int


class DrawSchedule:
    """Which examples each window of each stream draws: a pure function of the arguments.

    Args:
      rates: share of each dataset in all draws, from mixture.draw_rates.
      lengths: number of examples by dataset.
      streams: rows of the global batch. They divide each dataset, and together draw each example once per epoch.
      pool: average number of draws of a window. Before window w, a stream has drawn `w * pool * rate` examples of a
        dataset, give or take one. A window may be empty where the pool is small for the number of datasets.
    """

    def __init__(
        self, rates: Mapping[str, float], lengths: Mapping[str, int | None], *, seed: int, streams: int, pool: int
    ):
        self._rates, self._lengths = {name: rates[name] for name in sorted(rates)}, lengths
        self._seed, self._streams, self._pool = seed, streams, pool
        # Grain's shuffle computes single indices: no permutation of millions is stored.
        self._orders = {
            name: grain.MapDataset.range(lengths[name])
            .shuffle(seed=int(self._seed_sequence(PERMUTATION, *name.encode()).generate_state(1)[0]))
            .repeat()
            for name in self._rates
        }

    def window(self, stream: int, w: int) -> list[Draw]:
        """The draws of window `w` of a stream, in the order in which they are described."""
        draws = []
        for name, rate in self._rates.items():
            offset = self._generator(OFFSET, stream, *name.encode()).random()
            start, stop = (math.floor(edge * self._pool * rate + offset) for edge in (w, w + 1))
            for number in range(start, stop):
                of_all = number * self._streams + stream
                draws.append(Draw(name, int(self._orders[name][of_all]), of_all // self._lengths[name]))
        order = self._generator(ORDER, stream, w).permutation(len(draws))
        return [draws[i] for i in order]

    def _generator(self, purpose: int, *key: int) -> np.random.Generator:
        return np.random.default_rng(self._seed_sequence(purpose, *key))

    def _seed_sequence(self, purpose: int, *key: int) -> np.random.SeedSequence:
        return np.random.SeedSequence((self._seed, *key), spawn_key=(purpose,))
