import collections
import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_jax.data.mixture import Draw, MixtureError, Schedule, rates, shares, table


@dataclasses.dataclass
class Dataset:
    size: float | None = None
    rate: float = 1.0
    weight: float | None = None


@dataclasses.dataclass
class Group:
    rate: float
    datasets: dict[str, Dataset]


MIXTURE = {
    "talk": Group(0.6, {"a": Dataset(), "b": Dataset(weight=0.2)}),
    "point": Group(0.2, {"c": Dataset()}),
}
LENGTHS = {"a": 400, "b": 100, "c": 90_000}


def test_the_worked_example():
    assert rates(MIXTURE, LENGTHS) == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25}, abs=1e-12)


@pytest.mark.parametrize(
    ("dataset", "counts"),
    [
        (Dataset(), 30),  # the root of its 900 examples
        (Dataset(size=0), 1),
        (Dataset(size=0.25), 15),  # of a quarter of them
        (Dataset(size=1), 1),
        (Dataset(size=100), 10),
        (Dataset(size=1_000_000), 1000),  # a size is no cap
        (Dataset(size=100, rate=0.4), 4),
        (Dataset(rate=1.5), 45),
    ],
)
def test_a_dataset_counts_by_the_root_of_its_size(dataset, counts):
    other = Dataset(size=49)
    found = rates({"g": Group(0.3, {"x": dataset, "other": other})}, {"x": 900, "other": 5})
    assert found == pytest.approx({"x": counts / (counts + 7), "other": 7 / (counts + 7)}, abs=1e-12)


def test_fixed_rates_are_exact_shares_of_their_group():
    fixed = {"few": Dataset(1, 0.4), "some": Dataset(1, 0.3), "many": Dataset(1, 0.1), "academic": Dataset(1, 0.2)}
    mixture = {"points": Group(0.15, fixed), "rest": Group(0.95, {"r": Dataset()})}
    found = rates(mixture, {"few": 10, "some": 2_000, "many": 3, "academic": 77, "r": 5})
    assert found == pytest.approx(
        {"few": 0.06 / 1.1, "some": 0.045 / 1.1, "many": 0.015 / 1.1, "academic": 0.03 / 1.1, "r": 0.95 / 1.1}
    )


def test_what_is_missing_is_not_drawn_and_the_rest_is_scaled():
    assert rates(MIXTURE, {**LENGTHS, "b": None}) == pytest.approx({"a": 0.75, "c": 0.25})
    assert rates(MIXTURE, {**LENGTHS, "c": None}) == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    with pytest.raises(MixtureError, match=r"no dataset of the mixture is there; it names \['a', 'b', 'c'\]"):
        rates(MIXTURE, dict.fromkeys(LENGTHS))


def test_shares_are_known_where_sizes_are():
    unknown = dict.fromkeys(LENGTHS)
    assert shares(MIXTURE, unknown) == {"a": None, "b": None, "c": 0.25}
    named = {"g": Group(1, {"x": Dataset(size=100), "y": Dataset(size=400)})}
    assert shares(named, {"x": None, "y": None}) == pytest.approx({"x": 1 / 3, "y": 2 / 3})
    assert shares(MIXTURE, LENGTHS) == rates(MIXTURE, LENGTHS)


@pytest.mark.parametrize(
    ("mixture", "lengths", "said"),
    [
        ({"g": Group(0, {"x": Dataset()})}, {"x": 1}, "group g: the rate is 0, it must be positive"),
        ({"g": Group(1, {})}, {}, "group g names no dataset"),
        ({"g": Group(1, {"x": Dataset(rate=-1)})}, {"x": 1}, "dataset x: the rate is -1"),
        ({"g": Group(1, {"x": Dataset(size=-2)})}, {"x": 1}, "dataset x: the size is -2"),
        ({"g": Group(1, {"x": Dataset()})}, {"x": 0}, "dataset x has no examples"),
        ({g: Group(1, {"x": Dataset()}) for g in "gh"}, {"x": 1}, "dataset x is in groups g and h"),
    ],
)
def test_a_mixture_that_cannot_be_is_named(mixture, lengths, said):
    with pytest.raises(MixtureError, match=said):
        rates(mixture, lengths)


def test_the_table_shows_what_is_drawn_and_what_is_missing():
    whole = table(MIXTURE, LENGTHS)
    assert "missing" not in whole
    assert whole.splitlines()[2].split() == ["a", "400", "66.667%", "50.000%", "50.000%", "by", "length"]
    assert whole.splitlines()[3].split()[-1] == "0.2"
    lines = [line.rstrip() for line in table.__doc__.splitlines()[2:-1]]
    assert [line.removeprefix("    ") for line in lines] == table(MIXTURE, {**LENGTHS, "b": None}).splitlines()
    nothing = table(MIXTURE, dict.fromkeys(LENGTHS))
    assert nothing.endswith("3 of 3 datasets missing: there is nothing to draw: a, b, c")


def schedule(streams=2, seed=0, pool=10, **lengths):
    lengths = lengths or {"c": 4, "d": 3_000_000}
    share = {name: (i + 1) / sum(range(1, len(lengths) + 1)) for i, name in enumerate(lengths)}
    return Schedule(share, lengths, seed=seed, streams=streams, pool=pool)


def test_a_window_depends_on_nothing_but_the_schedule():
    again = schedule()
    for stream, w in ((1, 5), (0, 3), (1, 0)):
        assert schedule().window(stream, w) == again.window(stream, w)
    assert schedule().window(0, 0) != schedule().window(1, 0)
    assert schedule().window(0, 0) != schedule(seed=1).window(0, 0)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_shares_follow_the_rates_within_one_example(parts, pool, seed):
    share = {f"d{i}": part / math.fsum(parts) for i, part in enumerate(parts)}
    made = Schedule(share, dict.fromkeys(share, 17), seed=seed, streams=3, pool=pool)
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
    made = Schedule({"one": 1.0}, {"one": 1}, seed=3, streams=1, pool=1)
    assert [made.window(0, w) for w in range(4)] == [[Draw("one", 0, w)] for w in range(4)]


def test_far_windows_cost_no_more_than_near_ones():
    (far,) = {draw.epoch for draw in schedule(pool=100).window(1, 10**9) if draw.dataset == "d"}
    assert far == math.floor(10**9 * 100 * 2 / 3) * 2 // 3_000_000
