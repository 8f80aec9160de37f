"""config.json to architectures and back: files as published, as transformers 5 writes them, and what is refused."""

import dataclasses
import itertools
import json
import math

import pytest
from hypothesis import given

from data_pipelines.config import read_config as read_dataclass
from molmo2_jax.models.config import PRESETS, SIGLIP2_SO400M, TINY
from molmo2_jax.ops.rope import Yarn
from molmo2_jax.weights.hf.config import HfError, read_config, write_config
from tests.molmo2_jax.models.small import KINDS, OLMO, small
from tests.molmo2_jax.weights.hf import configs
from tests.molmo2_jax.weights.hf.configs import RELEASED, as_transformers_5_writes_it, changed
from tests.molmo2_jax.weights.hf.small_hf import architectures

O_7B = PRESETS["molmo2_o_7b"]


def molmo2(config: dict):
    return read_config(config, "config.json").molmo2("model")


# Reading


@pytest.mark.parametrize("config", [RELEASED, as_transformers_5_writes_it()], ids=["released", "transformers"])
def test_a_released_model_is_the_preset(config):
    assert molmo2(config) == dataclasses.replace(O_7B, name="model")


def test_a_released_file_counts_vit_layers_that_it_does_not_hold():
    c = molmo2(RELEASED)
    assert (c.vit.layers, c.vit.feature_layers) == (25, (24, 18))
    c = molmo2(changed(RELEASED, adapter_config__vit_layers=[-9, 3]))
    assert (c.vit.layers, c.vit.feature_layers) == (19, (18, 3))


def test_layers_of_a_vit_that_transformers_wrote_are_all_there():
    c = molmo2(changed(as_transformers_5_writes_it(), vision_config__num_hidden_layers=27))
    assert (c.vit.layers, c.vit.feature_layers) == (27, (24, 18))
    c = molmo2(changed(as_transformers_5_writes_it(), adapter_config__vision_feature_layer=[-1, -7]))
    assert (c.vit.layers, c.vit.feature_layers) == (25, (24, 18))


@pytest.mark.parametrize(
    ("given", "read"),
    [([0, 1, 2, 4, 5, 6], (0, 1, 2, 4, 5, 6)), ([], ()), (None, tuple(range(32))), (..., tuple(range(32)))],
)
def test_the_layers_with_yarn_are_those_of_the_file(given, read):
    assert molmo2(changed(RELEASED, text_config__rope_scaling_layers=given)).llm.yarn_layers == read


def test_without_yarn_no_layer_has_it():
    config = changed(RELEASED, text_config__rope_scaling=None)
    assert (molmo2(config).llm.yarn, molmo2(config).llm.yarn_layers) == (None, ())
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = changed(as_transformers_5_writes_it(), text_config__rope_parameters=rope)
    assert (molmo2(config).llm.yarn, molmo2(config).llm.rope_theta) == (None, 1e6)


def test_what_yarn_leaves_out():
    short = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 4096}
    expected = Yarn(4.0, 0.1 * math.log(4) + 1, 32.0, 1.0, 4096)
    assert molmo2(changed(RELEASED, text_config__rope_scaling=short)).llm.yarn == expected
    short["type"] = short.pop("rope_type")  # its name in older files
    assert molmo2(changed(RELEASED, text_config__rope_scaling=short)).llm.yarn == expected
    nulls = short | {"attention_factor": None, "beta_fast": None, "mscale": None, "truncate": True}
    assert molmo2(changed(RELEASED, text_config__rope_scaling=nulls)).llm.yarn == expected


def test_a_file_without_tie_word_embeddings_has_a_head():
    assert not molmo2(changed(RELEASED, text_config__tie_word_embeddings=...)).llm.tied


def yarn_of(c):
    return {
        "rope_type": "yarn",
        "factor": c.yarn.factor,
        "attention_factor": c.yarn.attention_factor,
        "beta_fast": c.yarn.beta_fast,
        "beta_slow": c.yarn.beta_slow,
        "original_max_position_embeddings": c.yarn.original_positions,
    }


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_a_base_language_model(kind, tied):
    c = small(qk_norm={"qwen3": "head", "llama": "none"}[kind], tied=tied).llm
    model = read_config(configs.llm_config(kind, c), "config.json")
    assert (model.model_type, model.vit, model.connector) == (kind, None, None)
    assert model.llm == dataclasses.replace(c, new_vocab=0)
    with pytest.raises(HfError, match=f"mine is a {kind} model; a whole Molmo2 is needed"):
        model.molmo2("mine")


@pytest.mark.parametrize("written_by", [4, 5])
def test_olmo3_stretches_the_layers_with_full_attention(written_by):
    c = small(**OLMO | {"layers": 8, "yarn_layers": (3, 7)}).llm
    config = configs.llm_config("olmo3", c)
    yarn = yarn_of(c)
    if written_by == 4:
        config["rope_scaling"] = yarn
    else:
        plain = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
        both = {"full_attention": yarn | {"rope_theta": plain["rope_theta"]}, "sliding_attention": plain}
        config["rope_parameters"] = both
    assert read_config(config, "config.json").llm == dataclasses.replace(c, new_vocab=0)
    both = {
        "full_attention": yarn | {"rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    with pytest.raises(HfError, match=r"sliding_attention: rope_theta is 10000.0; only 1000000.0"):
        read_config(config | {"rope_parameters": both}, "config.json")
    with pytest.raises(HfError, match=r"layer_types is .* not a list for 8 layers"):
        read_config(config | {"layer_types": ["full_attention"] * 7}, "config.json")


def test_what_old_files_of_llama_leave_out():
    config = configs.llm_config("llama", small(qk_norm="none", head_dim=8, kv_heads=4).llm)
    short = {
        key: value for key, value in config.items() if key not in ("head_dim", "num_key_value_heads", "rope_theta")
    }
    c = read_config(short, "config.json").llm
    assert (c.head_dim, c.kv_heads, c.rope_theta) == (8, 4, 10_000.0)


def test_a_siglip2_of_whose_config_most_is_left_out():
    vit = dataclasses.replace(SIGLIP2_SO400M, layers=27, feature_layers=())
    config = configs.vit_config(vit)
    for tower in (config, config["vision_config"]):
        model = read_config(tower, "config.json")
        assert (model.model_type, model.vit) == ("siglip_vision_model", vit)
        assert model.connector is model.llm is None
    any_ratio = changed(config, model_type="siglip2", vision_config__image_size=..., vision_config__num_patches=729)
    assert read_config(any_ratio, "config.json").vit == vit


# What is refused

WITHOUT = [  # a key that is needed, where
    "model_type",
    "vit_config__num_hidden_layers",
    "vit_config__layer_norm_eps",
    "vit_config__image_patch_size",
    "adapter_config",
    "adapter_config__vit_layers",
    "adapter_config__head_dim",
    "text_config__rope_theta",
    "text_config__norm_after",
    "text_config__qk_norm_type",
    "text_config__layer_norm_eps",
    "text_config__rope_scaling__original_max_position_embeddings",
]


@pytest.mark.parametrize("key", WITHOUT)
def test_a_missing_key_is_named(key):
    *above, last = key.split("__")
    name = {"vit_layers": "vision_feature_layer", "image_patch_size": "patch_size"}.get(last, last)
    section = ": ".join(["DIR/config.json", *above])
    with pytest.raises(HfError, match=f"{section} has no '{name}'$"):
        read_config(changed(RELEASED, **{key: ...}), "DIR/config.json")


REFUSED = [
    ({"model_type": "gpt2"}, "config.json: model_type is 'gpt2'; known are molmo2, "),
    ({"model_type": ["molmo2"]}, "model_type is "),
    ({"image_patch_id": 5}, "config.json: image_patch_id is 5; only 100280 is possible here"),
    ({"frame_end_token_id": 100287}, "frame_end_token_id is 100287; only 100286"),
    ({"vit_config": [27]}, "config.json: vit_config is not an object"),
    ({"vit_config__hidden_act": "gelu"}, "vit_config: hidden_act is 'gelu'; only 'gelu_pytorch_tanh'"),
    ({"vit_config__num_key_value_heads": 8}, "num_key_value_heads is 8; only 16"),
    (
        {"vit_config__num_attention_heads": 7, "vit_config__num_key_value_heads": 7},
        "hidden_size is 1152, no multiple of 7 heads",
    ),
    ({"vit_config__head_dim": 64}, "head_dim is 64; only 72"),
    ({"vit_config__image_num_pos": 577}, "positions is 577; only 729"),
    ({"vit_config__image_default_input_size": [378, 392]}, "image_size is .*; only "),
    ({"adapter_config__vit_layers": [27, 18]}, "vit_layers is .27, 18., not a list of layers of a model with 27"),
    ({"adapter_config__vit_layers": []}, "no layer of the ViT is used"),
    ({"adapter_config__hidden_size": 1024}, "hidden_size is 1024; only 1152"),
    ({"adapter_config__text_hidden_size": 2560}, "text_hidden_size is 2560; only 4096"),
    ({"adapter_config__head_dim": 64}, "adapter_config: 16 heads of 64 are not 1152"),
    ({"adapter_config__num_key_value_heads": 4}, "num_key_value_heads is 4; only 16"),
    ({"adapter_config__hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu'"),
    ({"adapter_config__pooling_attention_mask": False}, "pooling_attention_mask is False; only True"),
    ({"text_config__qkv_bias": True}, "text_config: qkv_bias is True; only False"),
    ({"text_config__use_qk_norm": False}, "use_qk_norm is False; only True"),
    ({"text_config__qk_norm_type": "layer"}, r"qk_norm_type is 'layer'; known are \['olmo', 'qwen3'\]"),
    ({"text_config__hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu'"),
    ({"text_config__num_key_value_heads": 5}, "32 heads cannot share 5 key-value heads"),
    ({"text_config__rope_scaling__rope_type": "llama3"}, "rope_type is 'llama3'; known are default and yarn"),
    ({"text_config__rope_scaling__truncate": False}, "truncate is False; only True"),
    ({"text_config__rope_scaling__mscale": 0.7}, "mscale is 0.7; only None"),
    (
        {"text_config__rope_scaling_layers": [32]},
        "rope_scaling_layers is .32., not a list of layers of a model with 32",
    ),
    ({"text_config__num_hidden_layers": "32"}, "num_hidden_layers is '32', not a whole number above 0"),
    ({"text_config__head_dim": 128.0}, "head_dim is 128.0, not a whole number above 0"),
    ({"text_config__layer_norm_eps": -1e-6}, "layer_norm_eps is -1e-06, not a number above 0"),
    ({"text_config__norm_after": "yes"}, "norm_after is 'yes', neither true nor false"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=lambda x: next(iter(x)) if isinstance(x, dict) else None)
def test_a_value_that_is_another_model_is_named(changes, message):
    with pytest.raises(HfError, match=message) as error:
        read_config(changed(RELEASED, **changes), "DIR/config.json")
    assert str(error.value).startswith("DIR/config.json: ")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window is True; only False"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True; only False"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True; only False"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu'"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type is 'llama3'"),
        ("llama", {"num_key_value_heads": 3}, "4 heads cannot share 3 key-value heads"),
        ("olmo3", {"attention_bias": True}, "attention_bias is True; only False"),
        ("olmo2", {}, "model_type is 'olmo2'; known are "),
        ("gemma3", {}, "model_type is 'gemma3'; known are "),
    ],
)
def test_a_base_model_that_the_decoder_is_not_is_refused(kind, changes, message):
    with pytest.raises(HfError, match=message):
        read_config(configs.llm_config(kind, small().llm) | changes, "config.json")


def key_paths(config: dict, above: str = ""):
    for key, value in config.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from key_paths(value, f"{above}{key}__")


BASES = {
    "released": RELEASED,
    "transformers": as_transformers_5_writes_it(),
    "olmo3": configs.llm_config("olmo3", small(**OLMO).llm),
    "siglip": configs.vit_config(TINY.vit),
}
NONSENSE = [None, ..., True, "x", -1, 0, 1.5, math.nan, [], ["x"], [1, 2], {}, {"x": 1}]


@pytest.mark.parametrize("base", BASES)
def test_nonsense_at_any_key_is_an_error_or_a_model(base):
    for key, value in itertools.product(key_paths(BASES[base]), NONSENSE):
        try:
            model = read_config(changed(BASES[base], **{key: value}), "config.json")
        except HfError as error:
            assert str(error).startswith("config.json"), (key, value)
        else:
            for part in (model.vit, model.connector, model.llm):
                if part is not None:  # values of the types that its fields have
                    read_dataclass(type(part), json.loads(json.dumps(dataclasses.asdict(part))), key)


@pytest.mark.parametrize("config", [None, [], "molmo2", 7, [{"model_type": "molmo2"}]])
def test_json_that_is_no_object_is_refused(config):
    with pytest.raises(HfError, match=r"^config.json is not an object$"):
        read_config(config, "config.json")


# Writing


@given(c=architectures())
def test_what_is_written_is_read(c):
    found = read_config(json.loads(json.dumps(write_config(c, 4096, "bfloat16"))), "config.json").molmo2(c.name)
    head = dataclasses.replace(c.llm, tied=False)  # never in config.json; the tensors show it
    assert found == dataclasses.replace(c, llm=head)


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_config_has_the_given_positions_and_dtype(kind):
    config = write_config(KINDS[kind], 4096, "bfloat16")
    assert config["text_config"]["max_position_embeddings"] == 4096
    assert config["dtype"] == "bfloat16" and config["tie_word_embeddings"] is False


def test_a_preset_is_written_as_the_released_file():
    found = write_config(O_7B, 65536, "float32")
    trimmed = changed(RELEASED, vit_config__num_hidden_layers=25, adapter_config__vit_layers=[24, 18])
    for config in (found, found["vit_config"], found["adapter_config"], found["text_config"]):
        config.pop("attention_dropout", None)
    for config in (trimmed, trimmed["vit_config"]):
        for key in ("attention_dropout", "float32_attention", "use_frame_special_tokens"):
            config.pop(key, None)
    assert found == trimmed | {"dtype": "float32"}


IMPOSSIBLE = [
    ("llm", {"qk_norm": "none"}, "llm.qk_norm = 'none'"),
    ("llm", {"new_vocab": 64}, "llm.new_vocab = 64"),
    ("llm", {"yarn": Yarn(8.0, 1.2, 32.0, 1.0, 16), "yarn_layers": (2,)}, r"llm.yarn_layers = \(2,\)"),
    ("vit", {"layers": 3}, "vit.layers = 3 after the last feature layer"),
    ("vit", {"patches": 256}, "vit.patches = 256"),
    ("vit", {"patch_pixels": 768}, "vit.patch_pixels = 768"),
    ("connector", {"head_dim": 9}, r"connector heads \* head_dim = 18"),
]


@pytest.mark.parametrize(("part", "values", "message"), IMPOSSIBLE)
def test_a_model_that_the_format_cannot_express_is_named_by_its_field(part, values, message):
    c = small()
    c = dataclasses.replace(c, **{part: dataclasses.replace(getattr(c, part), **values)})
    with pytest.raises(HfError, match=f"^small: Molmo2's Hugging Face format cannot express {message}$"):
        write_config(c, 4096, "float32")
    both = dataclasses.replace(
        c, llm=dataclasses.replace(c.llm, new_vocab=1), vit=dataclasses.replace(c.vit, patches=1)
    )
    with pytest.raises(HfError, match=r"llm.new_vocab = 1;.*vit.patches = 1"):
        write_config(both, 4096, "float32")
