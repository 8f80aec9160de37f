"""The released sizes, by the parameter counts that follow from the published checkpoints' shapes."""

import math

import jax
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import config
from molmo2_jax.models.structure import structure
from molmo2_jax.ops.rope import Yarn


@pytest.fixture(scope="module")
def structures():
    with jax.set_mesh(sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])):
        return {name: structure(config.preset(name)) for name in config.PRESETS}


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


def test_siglip2_is_read_after_its_blocks_24_and_18_in_this_order():
    for name in ("molmo2_4b", "molmo2_8b", "molmo2_o_7b"):
        vit = config.preset(name).vit
        assert (vit.layers, vit.feature_layers) == (25, (24, 18))
        assert (vit.width, vit.heads, vit.mlp, vit.norm_eps) == (1152, 16, 4304, 1e-6)


QWEN3 = {"yarn": None, "yarn_layers": (), "norm_after": False, "qk_norm": "head", "norm_eps": 1e-6}
OLMO3 = {
    "yarn": Yarn(8.0, 1.2079441541679836, beta_fast=32.0, beta_slow=1.0, original_positions=8192),
    "yarn_layers": (3, 7, 11, 15, 19, 23, 27, 31),
    "norm_after": True,
    "qk_norm": "projection",
    "norm_eps": 1e-6,
}


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("molmo2_4b", QWEN3 | {"rope_theta": 5_000_000.0, "heads": 32, "kv_heads": 8, "head_dim": 128, "tied": True}),
        ("molmo2_8b", QWEN3 | {"rope_theta": 1_000_000.0, "heads": 32, "kv_heads": 8, "head_dim": 128, "tied": False}),
        ("molmo2_o_7b", OLMO3 | {"rope_theta": 500_000.0, "heads": 32, "kv_heads": 32, "head_dim": 128, "tied": False}),
        ("tiny", QWEN3 | {"rope_theta": 1_000_000.0, "heads": 4, "kv_heads": 2, "head_dim": 48, "tied": True}),
    ],
)
def test_what_no_shape_shows_of_a_decoder_is_as_released(name, facts):
    llm = config.preset(name).llm
    assert {field: getattr(llm, field) for field in facts} == facts


def test_tied_heads_have_no_table_of_their_own(structures):
    assert "llm/head" not in structures["molmo2_4b"].shapes
    assert structures["molmo2_8b"].shapes["llm/head"] == (151_936, 4096)


def test_an_unknown_preset_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'molmo3' is unknown.*molmo2_4b"):
        config.preset("molmo3")
