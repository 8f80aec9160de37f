"""Every key belongs to one parameter and every parameter has its keys: names and shapes. Values: test_source.py."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_jax.models.config import PRESETS, Molmo2Config
from molmo2_jax.weights.hf import tensor_rules
from tests.molmo2_jax.models.small import KINDS, OLMO, small
from tests.molmo2_jax.weights.hf import formats
from tests.molmo2_jax.weights.hf.small_hf import architectures, structure

LAYOUTS = {"released": tensor_rules.released, "transformers": tensor_rules.native}
LLAMA = {"qk_norm": "none"}


def expand(rules: list[tensor_rules.Rule], c: Molmo2Config) -> list[tensor_rules.Tensor]:
    s = structure(c)
    return tensor_rules.expand(rules, s.shapes, lambda name: s.layers(name) is not None)


def shapes(tensors: list[tensor_rules.Tensor]) -> dict[str, tuple[int, ...]]:
    """{key: shape}. If a rule has several keys, each has the rows of one parameter."""
    return {
        key: tensor.shape if len(tensor.keys) == 1 else piece.rows_shape
        for tensor in tensors
        for key, piece in zip(tensor.keys, tensor.pieces, strict=len(tensor.keys) > 1)
    }


def by_definition(c: Molmo2Config, define, *arguments) -> dict[str, tuple[int, ...]]:
    """{key: shape} of the tensors that a format's definition makes of a model."""
    zeros = {name: np.zeros(shape, np.int8) for name, shape in structure(c).shapes.items()}
    return {key: x.shape for key, x in define(zeros, *arguments).items()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_tensors_of_a_molmo2(kind, layout):
    c = KINDS[kind]
    assert shapes(expand(LAYOUTS[layout](c.llm), c)) == by_definition(c, formats.MOLMO2[layout])


@pytest.mark.parametrize(
    ("kind", "llm"), [("qwen3", {}), ("qwen3", {"tied": False}), ("llama", LLAMA), ("olmo3", OLMO)]
)
def test_the_tensors_of_a_language_model(kind, llm):
    c = small(**llm)
    tensors = expand(tensor_rules.base_llm(c.llm), c)
    written = [tensor for tensor in tensors if not tensor.copy]  # of a tied head transformers writes nothing
    assert shapes(written) == by_definition(c, formats.base_llm, kind)
    assert [tensor.keys for tensor in tensors if tensor.copy] == ([("lm_head.weight",)] if c.llm.tied else [])


@pytest.mark.parametrize("prefix", ["", "vision_model."])
@pytest.mark.parametrize("convolution", [True, False])
def test_the_tensors_of_a_vision_tower(prefix, convolution):
    c = small()
    tensors = expand(tensor_rules.siglip2(prefix, convolution), c)
    assert shapes(tensors) == by_definition(c, formats.siglip2, prefix, convolution)


@pytest.mark.parametrize(("preset", "count"), [("molmo2_4b", 706), ("molmo2_8b", 706), ("molmo2_o_7b", 674)])
def test_released_checkpoints_have_as_many_tensors(preset, count):
    c = PRESETS[preset]
    found = shapes(expand(tensor_rules.released(c.llm), c))
    assert len(found) == count
    layer = "model.transformer.blocks.31.self_attn"
    heads, width = (96, 4096) if preset == "molmo2_o_7b" else (48, c.llm.width)
    assert found[f"{layer}.att_proj.weight"] == (heads * 128, width)
    assert found[f"{layer}.q_norm.weight"] == ((4096,) if preset == "molmo2_o_7b" else (128,))
    assert found["model.transformer.wte.new_embedding"] == (128, width)
    assert found["model.vision_backbone.image_pooling_2d.wq.weight"] == (1152, 2304)


@settings(max_examples=8)
@given(layout=st.sampled_from(sorted(LAYOUTS)), c=architectures())
def test_every_key_and_every_layer_of_a_parameter_is_met_once(layout, c):
    tensors, s = expand(LAYOUTS[layout](c.llm), c), structure(c)
    keys = collections.Counter(key for tensor in tensors for key in tensor.keys)
    carried = collections.Counter((p.name, p.layer) for t in tensors if not t.copy for p in t.pieces)
    copied = [piece.name for tensor in tensors if tensor.copy for piece in tensor.pieces]
    assert set(keys.values()) == set(carried.values()) == {1}
    assert carried.keys() == {
        (name, layer) for name in s.shapes for layer in ((None,) if s.layers(name) is None else range(s.layers(name)))
    }
    assert copied == (["llm/embed/base"] if c.llm.tied else [])


PATTERNS = [  # pattern, shape of the layer, sizes, shape of the rows
    ("d -> d", (3,), (), (3,)),
    ("(n h) -> n h", (2, 3), (), (6,)),
    ("f d -> d f", (4, 3), (), (3, 4)),
    ("(n h) d -> d n h", (5, 2, 3), (), (6, 5)),
    ("d (n h) -> n h d", (2, 3, 5), (), (5, 6)),
    ("d c y x -> (y x c) d", (24, 5), (("c", 2), ("y", 3), ("x", 4)), (5, 2, 3, 4)),
]


@pytest.mark.parametrize(("pattern", "shape", "sizes", "rows_shape"), PATTERNS)
@given(seed=st.integers(0, 9))
def test_a_rule_is_reversible(pattern, shape, sizes, rows_shape, seed):
    piece = tensor_rules.Piece("p", None, shape, pattern, sizes)
    assert piece.rows_shape == rows_shape
    values = np.random.default_rng(seed).normal(size=shape)
    assert piece.to_rows(values).shape == rows_shape
    np.testing.assert_array_equal(piece.to_layer(piece.to_rows(values)), values)


def test_a_rule_moves_values_as_its_pattern_says():
    q_DNH = np.arange(30).reshape(5, 2, 3)
    rows = tensor_rules.Piece("q", 0, (5, 2, 3), "(n h) d -> d n h", ()).to_rows(q_DNH)
    assert rows[4].tolist() == q_DNH[:, 1, 1].tolist()  # output 4 is element 1 of head 1


def test_parameters_that_a_model_does_not_have_have_no_tensors():
    rules = [tensor_rules.Rule(("a", "b"), ("ab",), "v d -> v d"), tensor_rules.Rule(("c",), ("c.{l}",), "d -> d")]
    (tensor,) = tensor_rules.expand(rules, {"a": (2, 3), "c": (1, 4)}, lambda name: name == "c")
    assert (tensor.keys, tensor.shape) == (("c.0",), (4,))
    assert [t.keys for t in tensor_rules.expand(rules, {"a": (2, 3), "b": (1, 3)}, lambda _: False)] == [("ab",)]


@pytest.mark.parametrize(
    ("key", "unused"),
    [
        ("text_model.encoder.layers.0.mlp.fc1.weight", True),
        ("logit_scale", True),
        ("logit_bias", True),
        ("vision_model.head.attention.in_proj_weight", True),
        ("head.probe", True),
        ("post_layernorm.weight", True),
        ("vision_model.encoder.layers.0.mlp.fc1.weight", False),
        ("lm_head.weight", False),
        ("vision_model.headless.weight", False),
    ],
)
def test_what_molmo2_does_not_take_of_a_siglip2(key, unused):
    assert bool(tensor_rules.SIGLIP2_UNUSED.fullmatch(key)) == unused
