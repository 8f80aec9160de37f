"""Streams: which examples the windows of a row hold, and in which rows."""

import pytest

from data_pipelines.errors import ExampleError
from data_pipelines.loading.draws import DrawSchedule
from data_pipelines.loading.stream import Stream, Unusable
from data_pipelines.packing.schema import RowShape


@pytest.fixture
def stream(open_data, small_config):
    def make(row=0, streams=1, pool=5):
        data, shape = open_data(pool=pool), small_config().row
        schedule = DrawSchedule(data.rates, data.lengths, seed=0, streams=streams, pool=pool)
        return Stream(row, schedule, lambda draw: data.describe(draw, 0), shape, 1)

    return make


def test_every_record_comes_once_an_epoch_in_a_new_order(stream):
    orders = set()
    one = stream()
    for epoch in range(8):
        rows, unusable = one.window(epoch)
        names = [example.id for packed in rows for example in packed]
        assert sorted(names) == ["clip0", "clip1", "clip2", "text0", "text1"] and not unusable
        orders.add(tuple(names))
    assert len(orders) > 4


def test_all_streams_together_walk_a_dataset_once(stream):
    streams = [stream(row, streams=5, pool=1) for row in range(5)]
    seen = [e.id for w in range(4) for s in streams for packed in s.window(w)[0] for e in packed]
    assert len(seen) == 20 and all(seen.count(name) == 4 for name in set(seen)) and len(set(seen)) == 5


def test_an_example_is_drawn_anew_every_epoch(stream):
    one = stream()

    def users(example):
        return tuple(tuple(turn.user.tolist()) for turn in example.turns)

    epochs = [{e.id: users(e) for packed in one.window(i)[0] for e in packed} for i in range(8)]
    assert len({epoch["clip0"] for epoch in epochs}) == 2  # its two branches in both orders


def test_rows_of_a_window_are_packed_within_the_budgets(stream, small_config):
    shape = small_config().row
    rows, _ = stream().window(0)
    assert len(rows) < 5  # some share a row
    for row in rows:
        for name, budget in (("n_tokens", shape.seq_len), ("n_crops", shape.crops), ("n_pooled", shape.pooled)):
            assert sum(getattr(example, name) for example in row) <= budget


def test_draws_that_cannot_be_described_are_reported():
    def describe(draw):
        raise ExampleError(f"{draw.dataset}[{draw.item}]: broken", "cut_off")

    schedule = DrawSchedule({"d": 1.0}, {"d": 3}, seed=0, streams=1, pool=3)
    rows, unusable = Stream(0, schedule, describe, RowShape(10, 0, 0), 1).window(0)
    assert rows == []
    assert sorted(unusable, key=str) == [Unusable("d", f"d[{i}]: broken", "cut_off") for i in range(3)]
