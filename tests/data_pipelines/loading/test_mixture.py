"""Mixtures: the rate of each dataset, and the table of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.config import ConfigError, read_config
from data_pipelines.loading.mixture import (
    DatasetConfig,
    MixtureConfig,
    MixtureError,
    MixtureGroup,
    configured_shares,
    draw_rates,
    mixture_table,
)


def dataset(size=None, rate=1.0, weight=None):
    return DatasetConfig("a.jsonl", size, rate, weight, 0.0)


MIXTURE = {
    "talk": MixtureGroup(0.6, {"a": dataset(), "b": dataset(weight=0.2)}),
    "point": MixtureGroup(0.2, {"c": dataset()}),
}
LENGTHS = {"a": 400, "b": 100, "c": 90_000}


def test_the_worked_example():
    assert draw_rates(MIXTURE, LENGTHS) == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25}, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "factor"),
    [
        (dataset(), 30),  # the root of its 900 examples
        (dataset(size=0), 1),
        (dataset(size=0.25), 15),  # of a quarter of them
        (dataset(size=1), 1),
        (dataset(size=100), 10),
        (dataset(size=1_000_000), 1000),  # a size is no cap
        (dataset(size=100, rate=0.4), 4),
        (dataset(rate=1.5), 45),
    ],
)
def test_a_dataset_s_share_is_proportional_to_the_root_of_its_size(x, factor):
    found = draw_rates({"g": MixtureGroup(0.3, {"x": x, "other": dataset(size=49)})}, {"x": 900, "other": 5})
    assert found == pytest.approx({"x": factor / (factor + 7), "other": 7 / (factor + 7)}, abs=1e-12)


def test_fixed_rates_are_exact_shares_of_their_group():
    fixed = {"few": dataset(1, 0.4), "some": dataset(1, 0.3), "many": dataset(1, 0.1), "academic": dataset(1, 0.2)}
    mixture = {"points": MixtureGroup(0.15, fixed), "rest": MixtureGroup(0.95, {"r": dataset()})}
    found = draw_rates(mixture, {"few": 10, "some": 2_000, "many": 3, "academic": 77, "r": 5})
    assert found == pytest.approx(
        {"few": 0.06 / 1.1, "some": 0.045 / 1.1, "many": 0.015 / 1.1, "academic": 0.03 / 1.1, "r": 0.95 / 1.1}
    )


def test_what_is_missing_is_not_drawn_and_the_rest_is_scaled():
    assert draw_rates(MIXTURE, {**LENGTHS, "b": None}) == pytest.approx({"a": 0.75, "c": 0.25})
    assert draw_rates(MIXTURE, {**LENGTHS, "c": None}) == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    with pytest.raises(MixtureError, match=r"no dataset of the mixture exists; it names \['a', 'b', 'c'\]"):
        draw_rates(MIXTURE, dict.fromkeys(LENGTHS))


def test_shares_are_known_where_sizes_are():
    unknown = dict.fromkeys(LENGTHS)
    assert configured_shares(MIXTURE, unknown) == {"a": None, "b": None, "c": 0.25}
    named = {"g": MixtureGroup(1, {"x": dataset(size=100), "y": dataset(size=400)})}
    assert configured_shares(named, {"x": None, "y": None}) == pytest.approx({"x": 1 / 3, "y": 2 / 3})
    assert configured_shares(MIXTURE, LENGTHS) == draw_rates(MIXTURE, LENGTHS)


@pytest.mark.parametrize(
    ("mixture", "lengths", "message"),
    [
        ({"g": MixtureGroup(1, {})}, {}, "group g names no dataset"),
        ({"g": MixtureGroup(1, {"x": dataset()})}, {"x": 0}, "dataset x has no examples"),
        ({g: MixtureGroup(1, {"x": dataset()}) for g in "gh"}, {"x": 1}, "dataset x is in groups g and h"),
    ],
)
def test_a_mixture_that_cannot_be_drawn_from_is_named(mixture, lengths, message):
    with pytest.raises(MixtureError, match=message):
        draw_rates(mixture, lengths)


def test_the_table_shows_what_is_drawn_and_what_is_missing():
    whole = mixture_table(MIXTURE, LENGTHS)
    assert "missing" not in whole
    assert whole.splitlines()[2].split() == ["a", "400", "66.667%", "50.000%", "50.000%", "by", "style"]
    assert whole.splitlines()[3].split()[-1] == "0.2"
    lines = [line.rstrip() for line in mixture_table.__doc__.splitlines()[2:-1]]
    assert [line.removeprefix("    ") for line in lines] == mixture_table(MIXTURE, {**LENGTHS, "b": None}).splitlines()
    nothing = mixture_table(MIXTURE, dict.fromkeys(LENGTHS))
    assert nothing.endswith("3 of 3 datasets are missing and nothing can be drawn: a, b, c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 0}, r"groups\.g\.rate = 0\.0 must be more than 0"),
        ({"x": {"rate": -1}}, r"groups\.g\.datasets\.x\.rate = -1\.0 must be more than 0"),
        ({"x": {"size": -2}}, r"groups\.g\.datasets\.x\.size = -2\.0 must be at least 0"),
        ({"x": {"weight": 0}}, r"groups\.g\.datasets\.x\.weight = 0\.0 must be more than 0"),
        ({"x": {"high_res": 2}}, r"groups\.g\.datasets\.x\.high_res = 2\.0 must be at least 0, at most 1"),
        ({"missing": "skip"}, r"missing = 'skip' is unknown; known: report, stop"),
    ],
)
def test_a_number_without_a_meaning_is_refused(change, message):
    one = {"source": "a.jsonl", "size": None, "rate": 1.0, "weight": None, "high_res": 0.0} | change.get("x", {})
    group = {"rate": change.get("rate", 1.0), "datasets": {"x": one}}
    with pytest.raises(ConfigError, match=f"mixture\\.{message}"):
        read_config(MixtureConfig, {"groups": {"g": group}, "missing": change.get("missing", "stop")}, "mixture")


SIZES = st.none() | st.just(0.0) | st.floats(0.01, 1e6)
GROUPS = st.lists(st.lists(st.tuples(SIZES, st.floats(0.1, 5)), min_size=1, max_size=4), min_size=1, max_size=4)


@given(GROUPS, st.data())
def test_rates_sum_to_one_and_groups_keep_their_share(groups, data):
    mixture, lengths = {}, {}
    for g, members in enumerate(groups):
        datasets = {f"d{g}.{i}": dataset(size, rate) for i, (size, rate) in enumerate(members)}
        mixture[f"g{g}"] = MixtureGroup(1.0 + g, datasets)
        lengths |= {name: data.draw(st.none() | st.integers(1, 10**6)) for name in datasets}
    present = {name for name, length in lengths.items() if length is not None}
    if not present:
        with pytest.raises(MixtureError, match="no dataset of the mixture exists"):
            draw_rates(mixture, lengths)
        return
    found = draw_rates(mixture, lengths)
    assert found.keys() == present and sum(found.values()) == pytest.approx(1)
    left = {g: group for g, group in mixture.items() if present & group.datasets.keys()}
    total = sum(group.rate for group in left.values())
    for group in left.values():
        own = [found[name] for name in group.datasets if name in present]
        assert sum(own) == pytest.approx(group.rate / total)
    assert mixture_table(mixture, lengths).count("missing") >= len(lengths.keys() - present)
