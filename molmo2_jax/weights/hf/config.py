"""config.json <-> architecture: Molmo2 as released or as transformers writes it, and the models it starts from.

    {"model_type": "molmo2",
     "vit_config": {"num_hidden_layers": 27, ...}, "adapter_config": {"vit_layers": [-3, -9], ...},
     "text_config": {"rope_theta": 1e6, "rope_scaling_layers": null, ...}}

        ->  Molmo2Config(vit=VitConfig(layers=25, feature_layers=(24, 18), ...), connector=..., llm=...)

Every value that affects the model is read or, where this project supports only one, checked. Sources: published
config.json files, and transformers' configuration classes, whose defaults fill in keys that a file leaves out.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from data_pipelines.media.crops import CROP_SIZE, PATCH
from data_pipelines.text.tokenizer import SPECIAL_ROWS, SPECIAL_TOKENS
from molmo2_jax.models.config import ConnectorConfig, LlmConfig, Molmo2Config, VitConfig
from molmo2_jax.ops.rope import Yarn

MAX_POSITIONS = 36_864  # tokens of the longest row that Molmo2 was trained on

# Field of VitConfig, ConnectorConfig, LlmConfig -> key of config.json.
_VIT = {
    "width": "hidden_size",
    "mlp": "intermediate_size",
    "heads": "num_attention_heads",
}
_CONNECTOR = {"heads": "num_attention_heads", "head_dim": "head_dim", "mlp": "intermediate_size"}
_LLM = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp": "intermediate_size",
    "vocab": "vocab_size",
}
_TOKEN_IDS = {  # key -> Molmo2's token; its id is the base vocabulary's size plus the token's offset
    "image_start_token_id": "<im_start>",
    "image_end_token_id": "<im_end>",
    "image_patch_id": "<im_patch>",
    "image_col_id": "<im_col>",
    "low_res_image_start_token_id": "<low_res_im_start>",
    "image_low_res_id": "<im_low>",
    "frame_start_token_id": "<frame_start>",
    "frame_end_token_id": "<frame_end>",
}
_QK_NORM = {"qwen3": "head", "olmo": "projection"}  # `qk_norm_type` of a Molmo2 -> LlmConfig.qk_norm
_YARN = {
    "factor": "factor",
    "attention_factor": "attention_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "original_positions": "original_max_position_embeddings",
}
# Names of sizes in released files -> the names that transformers uses now.
_RENAMED = {"image_default_input_size": "image_size", "image_patch_size": "patch_size", "image_num_pos": "positions"}

# Defaults of transformers' configuration classes, for the keys that old files are known to leave out.
_DEFAULTS = {
    "siglip_vision_model": {
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 16,
    },
    "siglip2_vision_model": {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "num_channels": 3},
    "llama": {"attention_bias": False, "mlp_bias": False, "rope_theta": 10_000.0},
    "qwen3": {"attention_bias": False, "use_sliding_window": False},
    "olmo3": {"attention_bias": False},
    "molmo2_text": {"tie_word_embeddings": False},
}


class HfError(ValueError):
    """A Hugging Face directory that cannot be used, or a model that the format cannot express. Names file and key."""


@dataclasses.dataclass(frozen=True)
class HfModel:
    """What a config.json describes: its `model_type`, and the parts it has (None for a part that it lacks).

    Base models have no rows for new tokens: their `llm.new_vocab` is 0. A base ViT has no feature layers.
    """

    model_type: str
    vit: VitConfig | None
    connector: ConnectorConfig | None
    llm: LlmConfig | None

    def molmo2(self, name: str) -> Molmo2Config:
        """The whole model. Raises HfError for a base model."""
        if self.vit is None or self.connector is None or self.llm is None:
            raise HfError(f"{name} is a {self.model_type} model; a whole Molmo2 is needed here")
        return Molmo2Config(name, self.vit, self.connector, self.llm)


class _Section:
    """One JSON object of a config.json. Reading a value checks it; errors name file and key."""

    def __init__(self, values: Mapping[str, Any], where: str, defaults: Mapping[str, Any] | None = None):
        if not isinstance(values, Mapping):
            raise HfError(f"{where} is not an object")
        self.where = where
        self._values = {**(defaults or {}), **{_RENAMED.get(key, key): value for key, value in values.items()}}

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            raise HfError(f"{self.where} has no {key!r}")
        return self._values[key]

    def has(self, key: str) -> bool:
        """Whether the key has a value other than null."""
        return self._values.get(key) is not None

    def check_values(self, expected: Mapping[str, Any]) -> None:
        """Raises HfError if a key is present with a value other than the expected one."""
        for key, value in expected.items():
            if self.has(key) and self[key] != value:
                raise HfError(f"{self.where}: {key} is {self[key]!r}; only {value!r} is possible here")

    def count(self, key: str) -> int:
        """An integer above 0."""
        if type(self[key]) is not int or self[key] < 1:
            raise HfError(f"{self.where}: {key} is {self[key]!r}, not a whole number above 0")
        return self[key]

    def number(self, key: str) -> float:
        """A number above 0."""
        if type(self[key]) not in (int, float) or not 0 < self[key] < math.inf:
            raise HfError(f"{self.where}: {key} is {self[key]!r}, not a number above 0")
        return float(self[key])

    def flag(self, key: str) -> bool:
        if type(self[key]) is not bool:
            raise HfError(f"{self.where}: {key} is {self[key]!r}, neither true nor false")
        return self[key]

    def layers(self, key: str, count: int) -> tuple[int, ...]:
        """Layer indices below `count`; in the file, negative ones count from the end."""
        value = self[key]
        if not isinstance(value, list) or any(type(x) is not int or not -count <= x < count for x in value):
            raise HfError(f"{self.where}: {key} is {value!r}, not a list of layers of a model with {count}")
        return tuple(x % count for x in value)

    def counts(self, fields: Mapping[str, str]) -> dict[str, int]:
        return {field: self.count(key) for field, key in fields.items()}

    def replace(self, key: str, value: Any) -> "_Section":
        return _Section({**self._values, key: value}, self.where)

    def section(self, key: str, defaults: Mapping[str, Any] | None = None) -> "_Section":
        return _Section(self[key], f"{self.where}: {key}", defaults)


def read_config(config: Mapping[str, Any], where: str) -> HfModel:
    """What a parsed config.json describes; `where` names the file in errors.

    Raises:
      HfError: an unknown architecture, a missing key, or a value that this project does not support.
    """
    kind = _Section(config, where)["model_type"]
    if kind == "molmo2":
        return _read_molmo2(_Section(config, where))
    if kind in ("qwen3", "olmo3", "llama"):
        return HfModel(kind, None, None, _read_base_llm(_Section(config, where, _DEFAULTS[kind]), kind))
    if kind in ("siglip", "siglip2"):
        whole = _Section(config, where)
        kind = f"{kind}_vision_model"
        return HfModel(kind, _read_base_vit(whole.section("vision_config", _DEFAULTS[kind])), None, None)
    if kind in ("siglip_vision_model", "siglip2_vision_model"):
        return HfModel(kind, _read_base_vit(_Section(config, where, _DEFAULTS[kind])), None, None)
    raise HfError(
        f"{where}: model_type is {kind!r}; known are molmo2, the language models qwen3, olmo3 and llama, and the "
        "vision models siglip and siglip2"
    )


def _read_molmo2(config: _Section) -> HfModel:
    vit = config.section("vit_config" if config.has("vit_config") else "vision_config")
    adapter, text = config.section("adapter_config"), config.section("text_config", _DEFAULTS["molmo2_text"])
    llm = _read_molmo2_llm(text)
    for key, token in _TOKEN_IDS.items():
        config.check_values({key: llm.vocab + SPECIAL_TOKENS.index(token)})
    layers = vit.count("num_hidden_layers")
    features = adapter.layers("vit_layers" if adapter.has("vit_layers") else "vision_feature_layer", layers)
    if not features:
        raise HfError(f"{adapter.where}: no layer of the ViT is used")
    # Released files count 27 layers and hold 25: layers after the last feature layer are never used.
    kept = max(features) + 1 if config.has("vit_config") else layers
    vit_config = _read_vit(vit, layers=kept, features=features)
    adapter.check_values({"num_key_value_heads": adapter["num_attention_heads"], "hidden_act": "silu"})
    adapter.check_values({"hidden_size": vit_config.width, "text_hidden_size": llm.width})
    adapter.check_values({"pooling_attention_mask": True})
    connector = ConnectorConfig(**adapter.counts(_CONNECTOR))
    if connector.heads * connector.head_dim != vit_config.width:
        raise HfError(f"{adapter.where}: {connector.heads} heads of {connector.head_dim} are not {vit_config.width}")
    return HfModel("molmo2", vit_config, connector, llm)


def _read_vit(vit: _Section, layers: int, features: tuple[int, ...]) -> VitConfig:
    heads = vit.count("num_attention_heads")
    vit.check_values({"hidden_act": "gelu_pytorch_tanh", "num_channels": 3, "num_key_value_heads": heads})
    if vit.count("hidden_size") % heads:
        raise HfError(f"{vit.where}: hidden_size is {vit['hidden_size']}, no multiple of {heads} heads")
    vit.check_values({"head_dim": vit["hidden_size"] // heads, "attention_bias": True})
    patch, side = vit.count("patch_size"), vit["image_size"]
    if isinstance(side, list) and side:
        vit.check_values({"image_size": [side[0]] * 2})
        vit = vit.replace("image_size", side[0])
    patches = (vit.count("image_size") // patch) ** 2
    vit.check_values({"positions": patches, "num_position_embeddings": patches})
    return VitConfig(
        **vit.counts(_VIT),
        layers=layers,
        feature_layers=features,
        patches=patches,
        patch_pixels=3 * patch**2,
        norm_eps=vit.number("layer_norm_eps"),
    )


def _read_base_vit(vit: _Section) -> VitConfig:
    """A SigLIP2 tower; Molmo2 uses its first layers."""
    if vit.has("num_patches"):  # variants for any aspect ratio give the number of patches instead of pixels
        vit = vit.replace("image_size", math.isqrt(vit.count("num_patches")) * vit.count("patch_size"))
    return _read_vit(vit, layers=vit.count("num_hidden_layers"), features=())


def _read_molmo2_llm(text: _Section) -> LlmConfig:
    text.check_values({"hidden_act": "silu", "qkv_bias": False, "attention_bias": False, "use_qk_norm": True})
    if text["qk_norm_type"] not in tuple(_QK_NORM):
        raise HfError(f"{text.where}: qk_norm_type is {text['qk_norm_type']!r}; known are {sorted(_QK_NORM)}")
    theta, yarn = _read_rope(text)
    layers = text.count("num_hidden_layers")
    stretched = text.layers("rope_scaling_layers", layers) if text.has("rope_scaling_layers") else tuple(range(layers))
    return LlmConfig(
        **text.counts(_LLM),
        kv_heads=_kv_heads(text),
        head_dim=text.count("head_dim"),
        new_vocab=text.count("additional_vocab_size"),
        rope_theta=theta,
        yarn=yarn,
        yarn_layers=() if yarn is None else stretched,
        norm_after=text.flag("norm_after"),
        qk_norm=_QK_NORM[text["qk_norm_type"]],
        norm_eps=text.number("rms_norm_eps" if text.has("rms_norm_eps") else "layer_norm_eps"),
        tied=text.flag("tie_word_embeddings"),
    )


def _read_base_llm(text: _Section, kind: str) -> LlmConfig:
    text.check_values({"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False})
    theta, yarn = _read_rope(text)
    # OLMo3 applies YaRN to its full-attention layers. Molmo2-O has no sliding window (public reference).
    layers = text.count("num_hidden_layers")
    kinds = text["layer_types"] if kind == "olmo3" else ["full_attention"] * layers
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise HfError(f"{text.where}: layer_types is {kinds!r}, not a list for {layers} layers")
    return LlmConfig(
        **text.counts(_LLM),
        kv_heads=_kv_heads(text),
        head_dim=text.count("head_dim")
        if text.has("head_dim")
        else text.count("hidden_size") // text.count("num_attention_heads"),
        new_vocab=0,
        rope_theta=theta,
        yarn=yarn,
        yarn_layers=() if yarn is None else tuple(i for i, each in enumerate(kinds) if each == "full_attention"),
        norm_after=kind == "olmo3",
        qk_norm={"qwen3": "head", "olmo3": "projection", "llama": "none"}[kind],
        norm_eps=text.number("rms_norm_eps"),
        tied=text.flag("tie_word_embeddings"),
    )


def _kv_heads(text: _Section) -> int:
    heads = text.count("num_attention_heads")
    kv_heads = text.count("num_key_value_heads") if text.has("num_key_value_heads") else heads
    if heads % kv_heads:
        raise HfError(f"{text.where}: {heads} heads cannot share {kv_heads} key-value heads")
    return kv_heads


def _read_rope(text: _Section) -> tuple[float, Yarn | None]:
    """(theta, YaRN or None) from `rope_parameters` (transformers 5), or from `rope_theta` and `rope_scaling`."""
    if text.has("rope_parameters"):
        scaling = text.section("rope_parameters")
        if scaling.has("full_attention"):  # OLMo3 has one entry per kind of layer, which differ only in the scaling
            sliding, scaling = scaling.section("sliding_attention"), scaling.section("full_attention")
            sliding.check_values({"rope_type": "default", "rope_theta": scaling["rope_theta"]})
        theta = scaling.number("rope_theta")
    else:
        theta = text.number("rope_theta")
        if not text.has("rope_scaling"):
            return theta, None
        scaling = text.section("rope_scaling")
    kind = scaling["type"] if scaling.has("type") else scaling["rope_type"]
    if kind == "default":
        return theta, None
    if kind != "yarn":
        raise HfError(f"{scaling.where}: rope_type is {kind!r}; known are default and yarn")
    scaling.check_values({"truncate": True, "mscale": None, "mscale_all_dim": None})
    defaults = {"beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 0.1 * math.log(scaling.number("factor")) + 1.0}
    values = {f: scaling.number(_YARN[f]) if f not in defaults or scaling.has(_YARN[f]) else defaults[f] for f in _YARN}
    return theta, Yarn(**values | {"original_positions": scaling.count(_YARN["original_positions"])})


def write_config(c: Molmo2Config, max_positions: int, dtype: str) -> dict[str, Any]:
    """The config.json of a Molmo2 as released, which transformers reads.

    Args:
      max_positions: longest sequence that the model supports, tokens.
      dtype: of the weights, "float32" or "bfloat16".

    Raises:
      HfError: the format cannot express a field; the message names it.
    """
    _check_expressible(c)
    return {
        "architectures": ["Molmo2ForConditionalGeneration"],
        "model_type": "molmo2",
        "dtype": dtype,
        "tie_word_embeddings": False,  # a tied head is written as a copy, as in the released files
        **{key: c.llm.vocab + SPECIAL_TOKENS.index(token) for key, token in _TOKEN_IDS.items()},
        "vit_config": {
            "model_type": "molmo2",
            **_values_by_key(c.vit, _VIT),
            "layer_norm_eps": c.vit.norm_eps,
            "num_hidden_layers": c.vit.layers,
            "num_key_value_heads": c.vit.heads,
            "head_dim": c.vit.head_dim,
            "hidden_act": "gelu_pytorch_tanh",
            "image_default_input_size": [CROP_SIZE, CROP_SIZE],
            "image_patch_size": PATCH,
            "image_num_pos": c.vit.patches,
            "attention_dropout": 0.0,
        },
        "adapter_config": {
            "model_type": "molmo2",
            **_values_by_key(c.connector, _CONNECTOR),
            "vit_layers": list(c.vit.feature_layers),
            "pooling_attention_mask": True,
            "hidden_size": c.vit.width,
            "num_key_value_heads": c.connector.heads,
            "hidden_act": "silu",
            "text_hidden_size": c.llm.width,
            "attention_dropout": 0.0,
        },
        "text_config": _text_config(c.llm, max_positions),
    }


def _text_config(c: LlmConfig, max_positions: int) -> dict[str, Any]:
    rope = {"rope_theta": c.rope_theta, "rope_scaling": None, "rope_scaling_layers": None}
    if c.yarn is not None:
        yarn = dataclasses.asdict(c.yarn)
        rope["rope_scaling"] = {"rope_type": "yarn"} | {key: yarn[field] for field, key in _YARN.items()}
        rope["rope_scaling_layers"] = list(c.yarn_layers)
    return {
        "model_type": "molmo2_text",
        **_values_by_key(c, _LLM),
        **rope,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "additional_vocab_size": c.new_vocab,
        "max_position_embeddings": max_positions,
        "qkv_bias": False,
        "use_qk_norm": True,
        "qk_norm_type": {norm: hf_norm for hf_norm, norm in _QK_NORM.items()}[c.qk_norm],
        "layer_norm_eps": c.norm_eps,
        "norm_after": c.norm_after,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
    }


def _values_by_key(part: Any, fields: Mapping[str, str]) -> dict[str, Any]:
    return {key: getattr(part, field) for field, key in fields.items()}


def _check_expressible(c: Molmo2Config) -> None:
    known = tuple(_QK_NORM.values())
    impossible = {
        f"llm.qk_norm = {c.llm.qk_norm!r}": c.llm.qk_norm not in known,
        f"llm.new_vocab = {c.llm.new_vocab}": c.llm.new_vocab != SPECIAL_ROWS,
        f"vit.layers = {c.vit.layers} after the last feature layer": c.vit.layers > max(c.vit.feature_layers) + 1,
        f"vit.patches = {c.vit.patches}": c.vit.patches != (CROP_SIZE // PATCH) ** 2,
        f"vit.patch_pixels = {c.vit.patch_pixels}": c.vit.patch_pixels != 3 * PATCH**2,
        f"connector heads * head_dim = {c.connector.heads * c.connector.head_dim}": (
            c.connector.heads * c.connector.head_dim != c.vit.width
        ),
        f"llm.yarn_layers = {c.llm.yarn_layers}": not set(c.llm.yarn_layers) <= set(range(c.llm.layers)),
    }
    problems = [field for field, is_impossible in impossible.items() if is_impossible]
    if problems:
        raise HfError(f"{c.name}: Molmo2's Hugging Face format cannot express {'; '.join(problems)}")
