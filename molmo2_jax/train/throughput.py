"""Contents of the batches and speed of the steps, over the rows of all processes.

    {"row_fill": 0.97, "tokens": 63556, "model_flops": 4.1e15, "data/examples": 96, "data/drawn/street": 96, ...}

A process counts the rows that it holds. A row that is sharded over several processes is counted once.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from data_pipelines.loading.training_counts import Counts
from molmo2_jax import sharding
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.train import distributed, model_flops, peak_flops


class BatchStats(NamedTuple):
    """The part of a batch that one process holds."""

    rows: list[int]  # indices into the global batch
    capacity: int  # tokens that fit the rows
    tokens: int  # tokens in use
    model_flops: float
    counts: dict  # Counts of these rows since step 0, as JSON


class Throughput:
    """Tokens per second, MFU and fill of the rows.

    `peak`: FLOP/s of all devices of the mesh. `source`: where this figure is from.
    """

    def __init__(self, architecture: Molmo2Config, mesh: jax.sharding.Mesh, rows: Sequence[int]):
        self._architecture, self._rows, self._shards = architecture, list(rows), mesh.shape[sharding.CONTEXT]
        peak, self.source = peak_flops.peak_flops(jax.local_devices()[0])
        self.peak, self._last = peak * mesh.size, time.perf_counter()

    def local_stats(self, rows: Mapping[str, np.ndarray]) -> BatchStats:
        """Counts of a batch of this process' loader."""
        until, pooling = rows["visible_until"], rows["pooling"]
        # Each vision shard numbers its crops from 0, so the shards are counted as rows of their own.
        shards = pooling.reshape(len(pooling) * self._shards, -1, pooling.shape[-1])
        counted = model_flops.model_flops(self._architecture, {**rows, "pooling": shards})
        return BatchStats(self._rows, until.size, int(np.count_nonzero(until)), counted, rows["counts"])

    def step_done(self) -> float:
        """Seconds since the last step was done."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds

    def global_stats(self, step: int, batch: BatchStats, seconds: float) -> tuple[dict[str, float], Counts] | None:
        """Metrics of the whole batch, and counts of all batches since step 0, at the first process; None at the others.

        All processes call it for the same steps.
        """
        gathered = distributed.gather(f"batch/{step}", batch)
        if gathered is None:
            return None
        parts = {tuple(part.rows): part for part in (BatchStats(*one) for one in gathered)}.values()
        counts = Counts()
        for part in parts:
            counts.add(Counts.from_json(part.counts))
        tokens, counted = sum(part.tokens for part in parts), sum(part.model_flops for part in parts)
        return {
            "row_fill": tokens / sum(part.capacity for part in parts),
            "tokens": float(tokens),
            "model_flops": counted,
            **count_metrics(counts),
            "tokens_per_second": tokens / seconds,
            "step_seconds": seconds,
            "mfu": counted / seconds / self.peak,
        }, counts


def count_metrics(counts: Counts) -> dict[str, float]:
    """Sums over all datasets, and the examples drawn of each: {"data/examples": 96, "data/drawn/street": 96, ...}."""
    total = counts.total()
    metrics = {
        "data/examples": total.examples,
        "data/failed": total.failed,
        "data/dropped": total.dropped,
        "data/loss_tokens": total.loss_tokens,
    }
    return metrics | {f"data/drawn/{name}": dataset.drawn for name, dataset in sorted(counts.datasets.items())}
