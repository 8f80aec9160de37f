"""Parameter groups by regex, and that the recipe's groups fit every model."""

import dataclasses

import jax
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import config as models
from molmo2_jax.models.structure import structure
from molmo2_jax.train.config import read
from molmo2_jax.train.parameter_groups import FROZEN, GroupConfig, assign_groups, group_norms
from tests.molmo2_jax.train.recipe import NAMES, experiment

GROUPS = {"a": GroupConfig(r"a/.*", 1e-3, 10), "b": GroupConfig(r"b/.*", 2e-2, 0)}
PARAMETERS = ("a/w", "a/scale", "b/w", "ice")


def with_pattern(group, pattern):
    return GROUPS | {group: dataclasses.replace(GROUPS[group], pattern=pattern)}


def test_every_parameter_gets_its_one_group():
    assert assign_groups(PARAMETERS, GROUPS, "ice") == {"a/w": "a", "a/scale": "a", "b/w": "b", "ice": FROZEN}


def test_no_parameter_need_be_frozen():
    assert FROZEN not in assign_groups(PARAMETERS[:3], GROUPS, "ice").values()


@pytest.mark.parametrize(
    ("groups", "frozen", "message"),
    [
        (with_pattern("a", r"a/w"), "ice", r"'a/scale' must match one group, it matches none"),
        (with_pattern("b", r"b/.*|a/w"), "ice", r"'a/w' must match one group, it matches \['a', 'b'\]"),
        (GROUPS, r"ice|b/.*", r"'b/w' must match one group, it matches \['frozen', 'b'\]"),
        (GROUPS | {"c": GroupConfig(r"c/.*", 1.0, 0)}, "ice", r"groups \['c'\] match no parameter"),
        (GROUPS | {FROZEN: GroupConfig(r"x", 1.0, 0)}, "ice", r"'frozen' is the name of the frozen"),
        (with_pattern("a", r"a/(.*"), "ice", r"the pattern 'a/\(\.\*' of 'a' is not a regex"),
    ],
)
def test_patterns_that_do_not_fit_are_named(groups, frozen, message):
    with pytest.raises(ValueError, match=message):
        assign_groups(PARAMETERS, groups, frozen)


def test_a_pattern_matches_whole_names():
    with pytest.raises(ValueError, match="'a/scale' must match one group"):
        assign_groups(PARAMETERS, with_pattern("a", r"a/w|scale"), "ice")


def test_a_group_s_norm_is_over_all_its_gradients_and_frozen_ones_have_none():
    grads = {"a/w": np.full((3, 3), 1.0, "f"), "a/scale": np.full(7, 1.0, "f"), "b/w": np.full(4, 2.0, "f")}
    norms = group_norms(grads, assign_groups(PARAMETERS, GROUPS, "ice"))
    assert {group: float(norm) for group, norm in norms.items()} == {"a": 4.0, "b": 4.0}


@pytest.fixture(scope="module")
def shapes():
    with jax.set_mesh(sharding.single_device_mesh()):
        return {name: structure(preset).shapes for name, preset in models.PRESETS.items()}


@pytest.mark.parametrize("preset", models.PRESETS)
@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_trains_all_but_the_base_embedding(shapes, name, preset):
    optim = read(experiment(name).to_dict()).optim
    assigned = assign_groups(shapes[preset], optim.groups, optim.frozen)
    assert [p for p, group in assigned.items() if group == FROZEN] == ["llm/embed/base"]
    assert assigned["llm/embed/new"] == "connector"
    assert {group for p, group in assigned.items() if p.startswith("vit/")} == {"vit"}
    assert {group for p, group in assigned.items() if p.startswith("connector/")} == {"connector"}
    assert {group for p, group in assigned.items() if p.startswith("llm/") and "/embed/" not in p} == {"llm"}
    # The head of 4B is the frozen embedding; those of the others train.
    assert ("llm/head" in assigned) == (not models.preset(preset).llm.tied)
