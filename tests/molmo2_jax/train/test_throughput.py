"""Counts and rates of batches: of one process' rows, and of all rows from several processes."""

import json
import types

import numpy as np
import pytest

from data_pipelines.loading.training_counts import Counts
from data_pipelines.packing.schema import empty_row
from molmo2_jax import sharding
from molmo2_jax.train import distributed, model_flops, peak_flops, throughput
from molmo2_jax.train.throughput import BatchStats, Throughput, count_metrics
from tests.molmo2_jax.models.small import KINDS, SHAPE, rows

ARCHITECTURE = KINDS["qwen3_tied"]


@pytest.fixture
def meter(monkeypatch):
    """Throughput on a mesh of 4 x 2 devices of 100 FLOP/s, whose process has rows 0 and 1."""

    def make(context=1):
        mesh = types.SimpleNamespace(shape={sharding.CONTEXT: context}, size=8)
        return Throughput(ARCHITECTURE, mesh, [0, 1])

    monkeypatch.setattr(peak_flops, "peak_flops", lambda device: (100.0, "a test"))
    return make


def counts_of(**datasets):
    counts = Counts()
    for name, examples in datasets.items():
        for _ in range(examples):
            counts.used(name, 10, 4, first=True)
    return counts


def test_a_batch_of_one_process_is_counted(meter):
    batch = rows(ARCHITECTURE) | {"counts": counts_of(street=3).to_json()}
    stats = meter().local_stats(batch)
    assert (stats.rows, stats.capacity, stats.tokens) == ([0, 1], 2 * 64, 2 * 60)
    assert stats.model_flops == model_flops.model_flops(ARCHITECTURE, batch)
    assert stats.counts == batch["counts"]


def test_padding_is_capacity_without_tokens(meter):
    row = {name: array[None] for name, array in empty_row(SHAPE).items()}
    stats = meter().local_stats(row | {"counts": {}})
    assert (stats.capacity, stats.tokens, stats.model_flops) == (64, 0, 0.0)


def test_each_vision_shard_counts_its_own_crops(meter):
    row = {name: array[None] for name, array in empty_row(SHAPE).items()} | {"counts": {}}
    row["pooling"][0, 0], row["pooling"][0, 6] = 0, 0  # patch 0 of the first crop of each half
    one, two = (meter(context).local_stats(row).model_flops for context in (1, 2))
    per_crop = model_flops.flops_by_part(ARCHITECTURE, {**row, "pooling": row["pooling"][:, :6]})["ViT"]
    assert two - one == per_crop > 0


def test_a_step_takes_the_time_since_the_last_one(meter, monkeypatch):
    clock = iter([10.0, 12.5, 13.0])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    m = meter()
    assert [m.step_done(), m.step_done()] == [2.5, 0.5]


def test_the_metrics_of_a_step_are_over_all_processes_and_count_shared_rows_once(meter, monkeypatch):
    mine = BatchStats([0, 1], 128, 100, 1000.0, counts_of(street=2, texts=1).to_json())
    other = BatchStats([2, 3], 128, 92, 600.0, counts_of(street=1).to_json())

    def gather(name, value):
        assert name == "batch/7" and value is mine
        return json.loads(json.dumps([mine, mine, other, other]))  # two processes share rows 0 and 1, two share 2 and 3

    monkeypatch.setattr(distributed, "gather", gather)
    metrics, counts = meter().global_stats(7, mine, seconds=2.0)
    assert metrics == {
        "row_fill": 192 / 256,
        "tokens": 192.0,
        "model_flops": 1600.0,
        "data/examples": 4,
        "data/failed": 0,
        "data/dropped": 0,
        "data/loss_tokens": 16,
        "data/drawn/street": 3,
        "data/drawn/texts": 1,
        "tokens_per_second": 96.0,
        "step_seconds": 2.0,
        "mfu": pytest.approx(1600 / 2 / 800),
    }
    assert counts.to_json() == counts_of(street=3, texts=1).to_json()


def test_only_the_first_process_has_the_metrics(meter, monkeypatch):
    monkeypatch.setattr(distributed, "gather", lambda name, value: None)
    assert meter().global_stats(1, BatchStats([0], 1, 1, 1.0, {}), 1.0) is None


def test_failed_examples_count_as_drawn():
    counts = counts_of(street=2)
    counts.failed("street", "cut_off")
    counts.dropped("street", 5)
    metrics = count_metrics(counts)
    assert metrics["data/drawn/street"] == 3 and metrics["data/examples"] == 2
    assert metrics["data/failed"] == 1 and metrics["data/dropped"] == 5
    assert all(np.isfinite(list(metrics.values())))
