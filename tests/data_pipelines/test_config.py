"""Configs: what is read, and every way a value can be wrong, named by its key."""

import dataclasses
import json
import math
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.config import (
    ConfigError,
    OneOf,
    Range,
    at_least,
    between,
    check_config,
    more_than,
    read_config,
)
from data_pipelines.loading.config import DataConfig
from tests.data_pipelines.restrictions import restrictions

KINDS = {"adam": 1, "sgd": 2}  # choices may be the keys of a mapping


@dataclasses.dataclass(frozen=True)
class Group:
    """One group."""

    rate: Annotated[float, more_than(0)]
    kind: Annotated[str, OneOf(KINDS)]


@dataclasses.dataclass(frozen=True)
class Decay:
    """An optional part."""

    end: Annotated[float, between(0, 1)]
    warmup: Annotated[int, at_least(1)] | None


@dataclasses.dataclass(frozen=True)
class Config:
    """A config with every kind of field."""

    name: str
    debug: bool
    steps: Annotated[int, at_least(1)]
    clip: Annotated[float, more_than(0)] | None
    groups: dict[str, Group]
    layers: tuple[Annotated[int, at_least(0)], ...]
    decay: Decay | None
    extra: dict[str, Annotated[int, at_least(0)]] | None


GOOD = {
    "name": "a",
    "debug": False,
    "steps": 3,
    "clip": None,
    "groups": {"llm": {"rate": 0.5, "kind": "adam"}, "vit": {"rate": 2, "kind": "sgd"}},
    "layers": [3, 9],
    "decay": {"end": 0.0, "warmup": None},
    "extra": {"x": 0},
}


def changed(path: str, value: Any) -> dict:
    """GOOD with the value at "groups.llm.rate" replaced."""
    tree = json.loads(json.dumps(GOOD))
    *parents, key = path.split(".")
    inner = tree
    for parent in parents:
        inner = inner[parent]
    inner[key] = value
    return tree


def without(key: str) -> dict:
    return {k: v for k, v in GOOD.items() if k != key}


def test_a_mapping_is_read():
    got = read_config(Config, GOOD, "config")
    assert got == Config(
        "a", False, 3, None, {"llm": Group(0.5, "adam"), "vit": Group(2.0, "sgd")}, (3, 9), Decay(0.0, None), {"x": 0}
    )
    assert type(got.groups["vit"].rate) is float  # JSON writes 2.0 as 2
    assert read_config(Config, GOOD | {"layers": (3, 9)}, "config") == got  # ConfigDicts hold tuples, JSON lists


def test_none_is_read_where_it_is_allowed():
    got = read_config(Config, GOOD | {"clip": 0.5, "decay": None, "extra": None}, "config")
    assert (got.clip, got.decay, got.extra) == (0.5, None, None)


def test_a_config_survives_json():
    config = read_config(Config, GOOD, "config")
    assert read_config(Config, json.loads(json.dumps(dataclasses.asdict(config))), "config") == config


BAD = [
    (GOOD | {"colour": 1}, "config.colour is unknown"),
    (without("steps"), "config.steps is missing"),
    (without("steps") | {"step": 3}, "config.step is unknown; config.steps is missing"),
    (changed("groups.llm.speed", 1), "config.groups.llm.speed is unknown"),
    (changed("groups.llm", {}), "config.groups.llm.rate is missing; config.groups.llm.kind is missing"),
    (changed("decay.warmup", 0), "config.decay.warmup = 0 must be at least 1"),
    (changed("steps", 0), "config.steps = 0 must be at least 1"),
    (changed("steps", "3"), "config.steps = '3' must be of type int"),
    (changed("steps", 3.0), "config.steps = 3.0 must be of type int"),
    (changed("steps", True), "config.steps = True must be of type int"),
    (changed("steps", None), "config.steps = None must be of type int"),
    (changed("debug", 1), "config.debug = 1 must be of type bool"),
    (changed("debug", "true"), "config.debug = 'true' must be of type bool"),
    (changed("name", 3), "config.name = 3 must be of type str"),
    (changed("clip", "1"), "config.clip = '1' must be of type float or None"),
    (changed("clip", 0), "config.clip = 0.0 must be more than 0"),
    (changed("clip", math.inf), "config.clip = inf must be finite"),
    (changed("clip", -math.inf), "config.clip = -inf must be finite"),
    (changed("clip", math.nan), "config.clip = nan must be finite"),
    (changed("groups", []), "config.groups = [] must be of type dict[str, test_config.Group]"),
    (changed("groups.llm", 3), "config.groups.llm = 3 must be of type Group"),
    (changed("groups.llm", None), "config.groups.llm = None must be of type Group"),
    (changed("groups.vit.rate", -1), "config.groups.vit.rate = -1.0 must be more than 0"),
    (changed("groups.vit.rate", math.nan), "config.groups.vit.rate = nan must be finite"),
    (changed("groups.vit.kind", "adamw"), "config.groups.vit.kind = 'adamw' is unknown; known: adam, sgd"),
    (changed("layers", 3), "config.layers = 3 must be of type tuple["),
    (changed("layers", [3, "9"]), "config.layers[1] = '9' must be of type int"),
    (changed("layers", [3, -9]), "config.layers[1] = -9 must be at least 0"),
    (changed("decay", 3), "config.decay = 3 must be of type Decay or None"),
    (changed("decay.end", 1.5), "config.decay.end = 1.5 must be at least 0, at most 1"),
    (changed("decay.end", -0.5), "config.decay.end = -0.5 must be at least 0, at most 1"),
    (changed("extra.x", -1), "config.extra.x = -1 must be at least 0"),
    (changed("extra.x", None), "config.extra.x = None must be of type int"),
]


@pytest.mark.parametrize(("tree", "message"), BAD, ids=[message for _, message in BAD])
def test_a_wrong_value_is_named_with_its_key(tree, message):
    with pytest.raises(ConfigError) as caught:
        read_config(Config, tree, "config")
    assert message in str(caught.value).replace(f"{__name__}.", "test_config.")


def test_all_values_out_of_range_are_named_together():
    tree = GOOD | {"steps": 0, "clip": -1.0, "groups": {"llm": {"rate": 0, "kind": "none"}}, "decay": None}
    with pytest.raises(ConfigError) as caught:
        read_config(Config, tree, "c")
    assert str(caught.value).split("; ") == [
        "c.steps = 0 must be at least 1",
        "c.clip = -1.0 must be more than 0",
        "c.groups.llm.rate = 0.0 must be more than 0",
        "c.groups.llm.kind = 'none' is unknown",
        "known: adam, sgd",
    ]


def test_a_config_made_in_code_is_checked_too():
    config = read_config(Config, GOOD, "config")
    check_config(config, "config")
    with pytest.raises(ConfigError, match=r"config\.decay\.end = 2 must be at least 0, at most 1"):
        check_config(dataclasses.replace(config, decay=Decay(2, None)), "config")


def test_a_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)


def test_restrictions_are_those_of_the_fields():
    found = restrictions(Config, "config")
    kind = found.pop("config.groups.*.kind")
    assert kind.values == ("adam", "sgd")
    assert found == {
        "config.steps": Range(1),
        "config.clip": Range(0, exclusive=True),
        "config.groups.*.rate": Range(0, exclusive=True),
        "config.layers.*": Range(0),
        "config.decay.end": Range(0, 1),
        "config.decay.warmup": Range(1),
        "config.extra.*": Range(0),
    }


def test_every_choice_and_range_of_the_data_config_is_found():
    found = restrictions(DataConfig, "data")
    assert found["data.loader.workers"] == Range(0)
    assert found["data.mixture.groups.*.datasets.*.high_res"] == Range(0, 1)
    assert found["data.view.max_subtitle_tokens"] == Range(1)
    assert found["data.loader.overflow"].values == ("split", "drop")
    assert "data.tokenizer" not in found


@given(st.floats() | st.integers(-(10**9), 10**9))
def test_ranges_say_what_their_names_say(value):
    finite = math.isfinite(value)
    assert (at_least(2).problem(value) is None) == (finite and value >= 2)
    assert (more_than(2).problem(value) is None) == (finite and value > 2)
    assert (between(-1, 2).problem(value) is None) == (finite and -1 <= value <= 2)


@given(st.text(max_size=6) | st.sampled_from(["a", "b"]))
def test_a_choice_is_one_of_its_values(value):
    assert (OneOf(("a", "b")).problem(value) is None) == (value in ("a", "b"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
PATHS = [
    *GOOD,
    *(f"groups.llm.{key}" for key in ("rate", "kind")),
    *(f"decay.{key}" for key in ("end", "warmup")),
    *("groups.llm", "extra.x"),
]


@given(st.sampled_from(PATHS), JSON)
def test_any_json_is_read_or_its_key_named(path, value):
    try:
        config = read_config(Config, changed(path, value), "config")
    except ConfigError as error:
        assert f"config.{path}" in str(error)
        return
    check_config(config, "config")
    again = read_config(Config, json.loads(json.dumps(dataclasses.asdict(config))), "config")
    assert again == config


@given(st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=4))
def test_a_dict_takes_any_name_and_checks_every_value(rates):
    tree = GOOD | {"groups": {name: {"rate": rate, "kind": "sgd"} for name, rate in rates.items()}}
    bad = [name for name, rate in rates.items() if not (math.isfinite(rate) and rate > 0)]
    if not bad:
        assert read_config(Config, tree, "c").groups == {name: Group(rate, "sgd") for name, rate in rates.items()}
        return
    with pytest.raises(ConfigError) as caught:
        read_config(Config, tree, "c")
    assert all(f"c.groups.{name}.rate = " in str(caught.value) for name in bad)
    assert str(caught.value).count(".rate = ") >= len(bad)
