"""What the batches of a run hold and how fast it goes, over the rows of all processes together.

    {"row_fill": 0.97, "tokens": 63556, "model_flops": 4.1e15, "data/examples": 96, "data/drawn/street": 96, ...}

Each process counts the rows that it holds; two that share a row (a row may be cut between hosts) count it once.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.data.counts import Counts
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.train import distributed, flops


class Batch(NamedTuple):
    """What one process knows of a batch."""

    rows: list[int]  # which of the global batch
    places: int  # tokens that would fit
    tokens: int
    model_flops: float
    counts: dict  # Counts of these rows since step 0, as JSON


class Meter:
    """Rates since the last step, and what batches hold."""

    def __init__(self, architecture: Molmo2Config, mesh: jax.sharding.Mesh, rows: Sequence[int]):
        self._architecture, self._rows, self._shards = architecture, list(rows), mesh.shape[sharding.CONTEXT]
        peak, self.source = flops.peak_flops(jax.local_devices()[0])
        self.peak, self._last = peak * mesh.size, time.perf_counter()

    def batch(self, rows: Mapping[str, np.ndarray]) -> Batch:
        """Of the rows that the loader of this process has made."""
        until, pooling = rows["visible_until"], rows["pooling"]
        # Each vision shard numbers its crops from 0: as rows of their own they are counted right.
        shards = pooling.reshape(len(pooling) * self._shards, -1, pooling.shape[-1])
        model_flops = flops.model_flops(self._architecture, {**rows, "pooling": shards})
        return Batch(self._rows, until.size, int(np.count_nonzero(until)), model_flops, rows["counts"])

    def step_done(self) -> float:
        """Seconds since the step before was done."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds

    def whole(self, step: int, batch: Batch, seconds: float) -> tuple[dict[str, float], Counts] | None:
        """Numbers of the whole batch and of all batches so far, at the first process; None at the others.

        All processes call it for the same steps.
        """
        told = distributed.gather(f"batch/{step}", batch)
        if told is None:
            return None
        parts = {tuple(part.rows): part for part in (Batch(*one) for one in told)}.values()
        counts = Counts()
        for part in parts:
            counts.add(Counts.from_json(part.counts))
        tokens, model_flops = sum(part.tokens for part in parts), sum(part.model_flops for part in parts)
        return {
            "row_fill": tokens / sum(part.places for part in parts),
            "tokens": float(tokens),
            "model_flops": model_flops,
            **as_stats(counts),
            "tokens_per_second": tokens / seconds,
            "step_seconds": seconds,
            "mfu": model_flops / seconds / self.peak,
        }, counts


def as_stats(counts: Counts) -> dict[str, float]:
    """Of all datasets together, and how many examples of each: {"data/examples": 96, "data/drawn/street": 96, ...}."""
    total = counts.total()
    stats = {
        "data/examples": total.examples,
        "data/failed": total.failed,
        "data/dropped": total.dropped,
        "data/loss_tokens": total.loss_tokens,
    }
    return stats | {f"data/drawn/{name}": one.drawn for name, one in sorted(counts.datasets.items())}
