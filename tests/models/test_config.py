"""The released sizes, by the parameter counts that follow from the published checkpoints' shapes."""

import math

import jax
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import config, params


@pytest.fixture(scope="module")
def structures():
    with jax.set_mesh(sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])):
        return {name: params.structure(config.preset(name)) for name in config.PRESETS}


@pytest.mark.parametrize(
    ("name", "total", "vit", "pooling", "projector", "block"),
    [
        ("molmo2_4b", 4_461_913_040, 382_505_936, 9_294_336, 47_316_992, 100_930_816),
        ("molmo2_8b", 8_661_703_120, 382_505_936, 9_294_336, 78_643_200, 192_946_432),
        ("molmo2_o_7b", 7_760_786_896, 382_505_936, 9_294_336, 70_451_200, 202_391_552),
    ],
)
def test_parameter_counts_are_the_released_ones(structures, name, total, vit, pooling, projector, block):
    s = structures[name]

    def count(*prefixes):
        return sum(n for p, n in sizes.items() if p.startswith(prefixes))

    sizes = {p: math.prod(shape) for p, shape in s.shapes.items()}
    assert s.count() == total
    assert count("vit/") == vit
    assert count(*(f"connector/{x}/" for x in "qkvo")) == pooling
    assert count("connector/gate", "connector/up", "connector/down") == projector
    assert count("llm/blocks/") == block * s.config.llm.layers


def test_every_parameter_has_an_axis_name_for_each_dimension(structures):
    for s in structures.values():
        for name, shape in s.shapes.items():
            stacked = "/blocks/" in name
            assert len(s.axes[name]) + stacked == len(shape), name
            sharding.stored(s.axes[name], len(shape))  # raises where two axes claim one mesh axis


def test_tied_heads_have_no_table_of_their_own(structures):
    assert "llm/head" not in structures["molmo2_4b"].shapes
    assert structures["molmo2_8b"].shapes["llm/head"] == (151_936, 4096)


def test_an_unknown_preset_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'molmo3' is unknown.*molmo2_4b"):
        config.preset("molmo3")
