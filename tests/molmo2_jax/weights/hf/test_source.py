"""Directories as sources of parameters, and parameters as tensors: every value, and an error for every damage."""

import dataclasses
import json
import pathlib
import tempfile

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_jax.weights.hf import tensor_files
from molmo2_jax.weights.hf.config import HfError, write_config
from molmo2_jax.weights.hf.source import tensors_of
from tests.molmo2_jax.models.small import KINDS, OLMO, random_weights, small
from tests.molmo2_jax.weights.hf import configs, formats
from tests.molmo2_jax.weights.hf.small_hf import architectures, assert_equal, read_all, source, structure
from tests.molmo2_jax.weights.sources import InMemory

FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)


def parameters(c, dtype=FLOAT32, seed=0):
    return {name: x.astype(dtype) for name, x in random_weights(structure(c).shapes, seed).items()}


def tensors(c, p, layout="released", dtype=None):
    arrays, read = tensors_of(InMemory(p), structure(c), layout, dtype)
    made = {key: read(key) for key in arrays}
    assert {key: (x.shape, x.dtype) for key, x in made.items()} == {
        key: (a.shape, a.dtype) for key, a in arrays.items()
    }
    return made


def write_molmo2(folder, c, p, layout="released"):
    """Written by formats.py, not by tensor_rules.py."""
    formats.write(folder, write_config(c, 4096, "float32"), formats.MOLMO2[layout](p))
    return folder


# Values


@settings(max_examples=8)
@given(
    c=architectures(),
    layout=st.sampled_from(["released", "transformers"]),
    dtype=st.sampled_from([FLOAT32, BFLOAT16]),
    shard=st.sampled_from([1 << 30, 50_000, 1_000]),
)
def test_any_model_comes_back_bit_equal(c, layout, dtype, shard):
    p = parameters(c, dtype)
    made = tensors(c, p, layout)
    assert_equal(made, formats.MOLMO2[layout](p))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        folder = pathlib.Path(folder)
        patch.setattr(tensor_files, "SHARD_BYTES", shard)
        arrays = {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in made.items()}
        tensor_files.write_tensors(folder, arrays, made.__getitem__, lambda n: None)
        (folder / "config.json").write_text(json.dumps(write_config(c, 4096, str(dtype))))
        found = source(folder)
        assert found.model.molmo2("drawn") == c  # also whether the head is tied, which only the tensors show
        assert {name: (a.shape, a.dtype) for name, a in found.arrays.items()} == {
            n: (x.shape, dtype) for n, x in p.items()
        }
        assert_equal(read_all(found), p)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "llm"), [("qwen3", {}), ("llama", {"qk_norm": "none"}), ("olmo3", OLMO)])
def test_a_base_language_model_gives_its_part(tmp_path, kind, llm, tied):
    c = small(**llm | {"tied": tied})
    p = parameters(c)
    formats.write(tmp_path, configs.llm_config(kind, c.llm), formats.base_llm(p, kind))
    found = source(tmp_path)
    assert found.model.llm.tied == tied
    assert_equal(read_all(found), {n: x for n, x in p.items() if n.startswith("llm/") and n != "llm/embed/new"})


UNUSED = [
    "text_model.embeddings.token_embedding.weight",
    "text_model.head.bias",
    "vision_model.post_layernorm.weight",
    "vision_model.head.attention.in_proj_weight",
    "logit_scale",
    "logit_bias",
]


@pytest.mark.parametrize(
    ("prefix", "convolution", "unused"),
    [
        ("vision_model.", True, UNUSED),
        ("vision_model.", False, UNUSED),
        ("", True, ["post_layernorm.weight", "head.probe"]),
        ("", False, []),
    ],
)
def test_a_siglip2_gives_its_tower(tmp_path, prefix, convolution, unused):
    c = small()
    p = parameters(c)
    rest = {key: np.ones((2, 3), np.float32) for key in unused} | {
        key: np.float32([1]) for key in unused if "logit" in key
    }
    config = configs.vit_config(c.vit)
    config = config if prefix else config["vision_config"]
    formats.write(tmp_path, config, formats.siglip2(p, prefix, convolution) | rest)
    found = source(tmp_path)
    assert_equal(read_all(found), {n: x for n, x in p.items() if n.startswith("vit/")})
    assert found.model.vit == dataclasses.replace(c.vit, feature_layers=())


@pytest.mark.parametrize("rows", [(224, 224), (319, 129), (1, 447)])
def test_the_rows_of_both_tables_may_be_split_anywhere(tmp_path, rows):
    """transformers 5 saves the two tables as halves of all their rows."""
    c = small()
    p = parameters(c)
    both = np.concatenate([p["llm/embed/base"], p["llm/embed/new"]])
    text = "model.transformer.wte"
    cut = {f"{text}.embedding": both[: rows[0]], f"{text}.new_embedding": both[rows[0] :]}
    formats.write(tmp_path, write_config(c, 4096, "float32"), formats.released(p) | cut)
    found = source(tmp_path)
    assert found.model.llm.tied
    assert_equal(read_all(found), p)


def test_values_are_rounded_to_the_wanted_dtype():
    c = KINDS["olmo3"]
    p = parameters(c)
    rounded = {name: x.astype(BFLOAT16) for name, x in p.items()}
    assert_equal(tensors(c, p, dtype=BFLOAT16), formats.released(rounded))
    assert_equal(
        tensors(c, rounded, dtype=FLOAT32), formats.released({n: x.astype(FLOAT32) for n, x in rounded.items()})
    )


def test_each_parameter_keeps_its_own_dtype(tmp_path):
    c = small(tied=False)
    p = parameters(c)
    mixed = formats.released(p)
    norm, key = "llm/norm/scale", "model.transformer.ln_f.weight"
    formats.write(tmp_path, write_config(c, 4096, "float32"), mixed | {key: mixed[key].astype(BFLOAT16)})
    assert_equal(read_all(source(tmp_path)), p | {norm: p[norm].astype(BFLOAT16)})


def test_parameters_that_share_a_tensor_are_not_rounded():
    c = small()
    p = parameters(c)
    q = "llm/blocks/attn/q/w"
    p[q] = p[q].astype(BFLOAT16)
    made = tensors(c, p)
    assert_equal(made, formats.released(p))
    assert made[ATT].dtype == FLOAT32


# Tied heads


def test_a_head_that_equals_the_table_is_tied_by_default(tmp_path):
    c = small(tied=True)
    p = parameters(c)
    write_molmo2(tmp_path, c, p)
    for tied in (None, True):
        found = source(tmp_path, tied)
        assert found.model.llm.tied and "llm/head" not in found.arrays
    found = source(tmp_path, tied=False)
    assert not found.model.llm.tied
    np.testing.assert_array_equal(found.read("llm/head", None), p["llm/embed/base"])


@pytest.mark.parametrize("chunk", [1 << 14, 100])
def test_a_head_that_differs_is_not_tied(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("molmo2_jax.weights.hf.source._CHUNK", chunk)
    c = small(tied=True)
    p = parameters(c)
    changed = formats.released(p)
    changed["lm_head.weight"] = changed["lm_head.weight"].copy()
    changed["lm_head.weight"][-1, -1] += 1
    formats.write(tmp_path, write_config(c, 4096, "float32"), changed)
    assert not source(tmp_path).model.llm.tied
    first = 0 if chunk > 320 else 300
    with pytest.raises(HfError, match=rf"model.safetensors: tensor lm_head.weight: differs .* at rows {first} to 319"):
        source(tmp_path, tied=True).read("llm/embed/base", None)


def test_a_base_model_says_whether_its_head_is_tied(tmp_path):
    c = small(tied=True)
    p = parameters(c)
    written = formats.base_llm(p, "qwen3")
    formats.write(tmp_path, configs.llm_config("qwen3", c.llm), written | formats.head(p))  # a copy may be there
    assert_equal(read_all(source(tmp_path)), {n: x for n, x in p.items() if n.startswith("llm/") and "new" not in n})
    other = {"lm_head.weight": p["llm/embed/base"] + 1}
    formats.write(tmp_path, configs.llm_config("qwen3", c.llm), written | other)
    with pytest.raises(HfError, match=r"lm_head.weight: differs from the input embedding at rows 0 to 319"):
        source(tmp_path).read("llm/embed/base", None)
    formats.write(tmp_path, configs.llm_config("qwen3", c.llm) | {"tie_word_embeddings": False}, written)
    with pytest.raises(HfError, match=r"no tensor lm_head.weight, which the qwen3 of its config.json has"):
        source(tmp_path)


# What is refused

UP = "model.vision_backbone.image_vit.transformer.resblocks.1.feed_forward.w1.weight"
ATT = "model.transformer.blocks.0.self_attn.att_proj.weight"
FILE = r"/model\.safetensors: tensor "

DAMAGE = {
    "missing": (lambda t: t.pop(ATT), f"no tensor {ATT}, which the molmo2 of its config.json has"),
    "extra": (lambda t: t.update(extra=t[ATT]), f"{FILE}extra: unknown to the molmo2"),
    "misspelt": (lambda t: t.update({UP + "s": t.pop(UP)}), f"no tensor {UP}, (?s:.*){FILE}{UP}s: unknown"),
    "transposed": (
        lambda t: t.update({UP: t[UP].T}),
        rf"{FILE}{UP}: shape \(16, 24\), expected \(24, 16\); it is transposed",
    ),
    "cut": (lambda t: t.update({ATT: t[ATT][:-1]}), rf"{FILE}{ATT}: shape \(95, 32\), expected \(96, 32\)"),
    "flat": (lambda t: t.update({UP: t[UP].ravel()}), rf"{FILE}{UP}: shape \(384,\), expected \(24, 16\)"),
    "scalar": (lambda t: t.update({UP: np.float32(1)}), rf"{FILE}{UP}: shape \(\), expected \(24, 16\)"),
    "rows": (
        lambda t: t.update({"model.transformer.wte.new_embedding": t["model.transformer.wte.embedding"]}),
        rf"{FILE}model.transformer.wte.embedding: shape \(320, 32\) and \(320, 32\), expected \(448, 32\)",
    ),
    "widths": (
        lambda t: t.update({"model.transformer.wte.new_embedding": np.ones((128, 31), np.float32)}),
        r"wte.embedding: shape \(320, 32\) and \(128, 31\), expected \(448, 32\)",
    ),
    "dtypes": (
        lambda t: t.update({"model.transformer.wte.new_embedding": np.ones((128, 32), BFLOAT16)}),
        r"wte.embedding: of another dtype than model.transformer.wte.new_embedding",
    ),
    "both layouts": (
        lambda t: t.update({"model.language_model.norm.weight": t["model.transformer.ln_f.weight"]}),
        f"{FILE}model.language_model.norm.weight: unknown",
    ),
    "no head": (lambda t: t.pop("lm_head.weight"), "no tensor lm_head.weight"),
    "one more layer": (
        lambda t: t.update({ATT.replace("0", "2"): t[ATT]}),
        "blocks.2.self_attn.att_proj.weight: unknown",
    ),
    "integers": (lambda t: t.update({UP: t[UP].astype(np.int32)}), f"{FILE}{UP} is of I32; weights are"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_refused_before_values_are_read(tmp_path, damage):
    change, message = DAMAGE[damage]
    c = small(tied=False)
    made = formats.released(parameters(c))
    change(made)
    formats.write(tmp_path, write_config(c, 4096, "float32"), made)
    with pytest.raises(HfError, match=message) as error:
        source(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}")


def test_every_damage_is_reported_at_once(tmp_path):
    c = small(tied=False)
    made = formats.released(parameters(c))
    del made[UP]
    made |= {f"extra.{i}": made[ATT] for i in range(20)}
    formats.write(tmp_path, write_config(c, 4096, "float32"), made)
    with pytest.raises(HfError) as error:
        source(tmp_path)
    lines = str(error.value).splitlines()
    assert UP in lines[0] and "extra" in lines[1] and lines[-1] == "… and 11 more" and len(lines) == 11


def test_a_nan_is_named_when_it_is_read(tmp_path):
    c = small(tied=False)
    made = {key: x.copy() for key, x in formats.released(parameters(c)).items()}
    made[ATT][50, 3] = np.nan  # a row of k
    formats.write(tmp_path, write_config(c, 4096, "float32"), made)
    found = source(tmp_path)
    with pytest.raises(HfError, match=f"{tmp_path}{FILE}{ATT}: 1 of its values are NaN or infinite"):
        found.read("llm/blocks/attn/k/w", 0)


def test_a_parameter_that_is_not_finite_is_not_written():
    c = small()
    p = parameters(c)
    p["llm/blocks/mlp/up/w"][1, 2, 3] = np.inf
    _, read = tensors_of(InMemory(p, "runs/mine"), structure(c), "released", None)
    read("model.transformer.blocks.0.mlp.ff_proj.weight")
    with pytest.raises(HfError, match=r"^runs/mine: parameter llm/blocks/mlp/up/w, layer 1 has values that are NaN"):
        read("model.transformer.blocks.1.mlp.ff_proj.weight")


def test_a_value_too_large_for_the_wanted_dtype_is_not_written():
    c = small()
    p = parameters(c)
    p["llm/norm/scale"][0] = 3.4e38  # rounds to infinity
    with pytest.raises(HfError, match="parameter llm/norm/scale has values that are NaN or infinite as bfloat16"):
        tensors(c, p, dtype=BFLOAT16)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, r"config.json: no such file"),
        ("{", r"config.json: not JSON"),
        ("", r"config.json: not JSON"),
        ("[]", r"config.json is not an object"),
        ('{"model_type": "gpt2"}', r"config.json: model_type is 'gpt2'"),
        ("{}", r"config.json has no 'model_type'"),
    ],
)
def test_a_directory_without_a_supported_config(tmp_path, config, message):
    formats.write(tmp_path, {}, formats.released(parameters(small())))
    (tmp_path / "config.json").unlink()
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(HfError, match=f"^{tmp_path}/{message}"):
        source(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (write_config(small(layers=3), 4096, "float32"), "no tensor model.transformer.blocks.2"),
        (write_config(KINDS["olmo3"], 4096, "float32"), r"att_proj.weight: shape \(96, 32\), expected \(144, 32\)"),
        (configs.llm_config("qwen3", small().llm), "no tensor model.embed_tokens.weight, which the qwen3"),
        (configs.vit_config(small().vit), "no tensor embeddings.position_embedding.weight, which the siglip_vision"),
    ],
)
def test_the_config_of_another_model(tmp_path, config, message):
    formats.write(tmp_path, config, formats.released(parameters(small(tied=False))))
    with pytest.raises(HfError, match=message):
        source(tmp_path)


def test_a_siglip2_with_other_patches_is_refused(tmp_path):
    c = small()
    made = formats.siglip2(parameters(c), "vision_model.", True)
    config = configs.changed(configs.vit_config(c.vit), vision_config__patch_size=16)
    made["vision_model.embeddings.patch_embedding.weight"] = np.ones((16, 3, 16, 16), np.float32)
    formats.write(tmp_path, config, made)
    with pytest.raises(HfError, match=r"patch_embedding.weight: shape \(16, 3, 16, 16\), expected \(16, 3, 14, 14\)"):
        source(tmp_path)
