"""The schedule: shares that follow the rates, and epochs that hold every example once."""

import collections
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.loading.draws import Draw, DrawSchedule


def schedule(streams=2, seed=0, pool=10, **lengths):
    lengths = lengths or {"c": 4, "d": 3_000_000}
    share = {name: (i + 1) / sum(range(1, len(lengths) + 1)) for i, name in enumerate(lengths)}
    return DrawSchedule(share, lengths, seed=seed, streams=streams, pool=pool)


def test_a_window_depends_on_nothing_but_the_schedule():
    again = schedule()
    for stream, w in ((1, 5), (0, 3), (1, 0)):
        assert schedule().window(stream, w) == again.window(stream, w)
    assert schedule().window(0, 0) != schedule().window(1, 0)
    assert schedule().window(0, 0) != schedule(seed=1).window(0, 0)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=15)
def test_shares_follow_the_rates_within_one_example(parts, pool, seed):
    share = {f"d{i}": part / math.fsum(parts) for i, part in enumerate(parts)}
    made = DrawSchedule(share, dict.fromkeys(share, 17), seed=seed, streams=3, pool=pool)
    drawn = collections.Counter()
    for w in range(12):
        drawn.update(draw.dataset for draw in made.window(2, w))
        for name, rate in share.items():
            assert abs(drawn[name] - (w + 1) * pool * rate) <= 1 + 1e-6


def test_streams_together_see_each_example_once_an_epoch():
    made = schedule(streams=3, pool=6, a=13, b=20)
    draws = [draw for w in range(25) for stream in range(3) for draw in made.window(stream, w)]
    for name, length in (("a", 13), ("b", 20)):
        epochs = collections.defaultdict(list)
        for draw in draws:
            if draw.dataset == name:
                epochs[draw.epoch].append(draw.item)
        whole = [items for items in epochs.values() if len(items) == length]
        assert len(whole) >= 5
        assert all(sorted(items) == list(range(length)) for items in whole)
        assert len({tuple(items) for items in whole}) == len(whole)  # in another order each time


def test_orders_differ_between_datasets_and_are_mixed():
    made = schedule(streams=1, pool=60, a=20, b=20)
    (draws,) = (made.window(0, w) for w in range(1))
    of = {name: [draw.item for draw in draws if draw.dataset == name] for name in "ab"}
    assert sorted(of["b"][:20]) != of["b"][:20]
    assert of["a"] != of["b"][: len(of["a"])]
    names = [draw.dataset for draw in draws]
    assert names != sorted(names)


def test_a_single_dataset_fills_every_window():
    made = DrawSchedule({"one": 1.0}, {"one": 1}, seed=3, streams=1, pool=1)
    assert [made.window(0, w) for w in range(4)] == [[Draw("one", 0, w)] for w in range(4)]


def test_far_windows_cost_no_more_than_near_ones():
    (far,) = {draw.epoch for draw in schedule(pool=100).window(1, 10**9) if draw.dataset == "d"}
    assert far == math.floor(10**9 * 100 * 2 / 3) * 2 // 3_000_000
