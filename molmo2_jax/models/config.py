"""Architectures as values: every size of every model, and nothing about how it runs or trains.

Qwen3 and OLMo3 are the same decoder with other values. Sizes are those of the released checkpoints
(public reference, olmo/model_configs.py, and the published config.json files).
"""

import dataclasses

from data_pipelines.media import crops
from molmo2_jax.ops.rope import Yarn


@dataclasses.dataclass(frozen=True)
class VitConfig:
    """SigLIP2 vision transformer; only the blocks up to the last feature layer exist."""

    width: int
    heads: int
    mlp: int
    layers: int
    feature_layers: tuple[int, ...]  # blocks (from 0) whose outputs are concatenated, in this order
    patches: int
    patch_pixels: int
    norm_eps: float

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@dataclasses.dataclass(frozen=True)
class ConnectorConfig:
    """Attention pooling of patches into visual tokens, then a SwiGLU projector into the LLM."""

    heads: int
    head_dim: int
    mlp: int  # the LLM's intermediate size in the released models


@dataclasses.dataclass(frozen=True)
class LlmConfig:
    """A decoder: Qwen3 (norm before, QK norm per head) or OLMo3 (norm after, QK norm over the whole projection)."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int
    new_vocab: int  # embedding rows for Molmo2's special tokens; inputs only, they cannot be predicted
    rope_theta: float
    yarn: Yarn | None
    yarn_layers: tuple[int, ...]  # layers with YaRN frequencies; the others keep plain RoPE
    norm_after: bool  # normalise a sub-layer's output instead of its input
    qk_norm: str  # "head": each head vector; "projection": all heads as one vector; "none"
    norm_eps: float
    tied: bool  # the output embedding is the base input embedding


@dataclasses.dataclass(frozen=True)
class Molmo2Config:
    """One whole model."""

    name: str
    vit: VitConfig
    connector: ConnectorConfig
    llm: LlmConfig


SIGLIP2_SO400M = VitConfig(
    width=1152,
    heads=16,
    mlp=4304,
    layers=25,  # of 27: nothing uses the last two
    feature_layers=(24, 18),
    patches=crops.PATCHES,
    patch_pixels=crops.PATCH_PIXELS,
    norm_eps=1e-6,
)

QWEN3_4B_INSTRUCT = LlmConfig(
    width=2560,
    layers=36,
    heads=32,
    kv_heads=8,
    head_dim=128,
    mlp=9728,
    vocab=151_936,
    new_vocab=128,
    rope_theta=5_000_000.0,
    yarn=None,
    yarn_layers=(),
    norm_after=False,
    qk_norm="head",
    norm_eps=1e-6,
    tied=True,
)

QWEN3_8B = dataclasses.replace(QWEN3_4B_INSTRUCT, width=4096, mlp=12_288, rope_theta=1_000_000.0, tied=False)

OLMO3_7B_INSTRUCT = LlmConfig(
    width=4096,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    mlp=11_008,
    vocab=100_278,
    new_vocab=128,
    rope_theta=500_000.0,
    yarn=Yarn(factor=8.0, attention_factor=1.2079441541679836, beta_fast=32.0, beta_slow=1.0, original_positions=8192),
    # The full-attention layers of OLMo3. A released Molmo2-O lists its layers in config.json (`rope_scaling_layers`).
    yarn_layers=tuple(range(3, 32, 4)),
    norm_after=True,
    qk_norm="projection",
    norm_eps=1e-6,
    tied=False,
)


SMOLLM2_135M = LlmConfig(  # has the values of a Llama; small enough for experiments on any machine
    width=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    mlp=1536,
    vocab=49_152,
    new_vocab=128,
    rope_theta=100_000.0,
    yarn=None,
    yarn_layers=(),
    norm_after=False,
    qk_norm="none",
    norm_eps=1e-5,
    tied=True,
)


def _released(name: str, llm: LlmConfig) -> Molmo2Config:
    return Molmo2Config(name, SIGLIP2_SO400M, ConnectorConfig(heads=16, head_dim=72, mlp=llm.mlp), llm)


# The real architecture at a size for two CPU cores: 378x378 crops, grouped queries, heads * head_dim != width.
TINY = Molmo2Config(
    "tiny",
    vit=dataclasses.replace(SIGLIP2_SO400M, width=64, heads=2, mlp=128, layers=3, feature_layers=(2, 1)),
    connector=ConnectorConfig(heads=2, head_dim=32, mlp=256),
    llm=dataclasses.replace(
        QWEN3_4B_INSTRUCT, width=128, layers=4, heads=4, kv_heads=2, head_dim=48, mlp=384, rope_theta=1_000_000.0
    ),
)

PRESETS = {
    "molmo2_4b": _released("molmo2_4b", QWEN3_4B_INSTRUCT),
    "molmo2_8b": _released("molmo2_8b", QWEN3_8B),
    "molmo2_o_7b": _released("molmo2_o_7b", OLMO3_7B_INSTRUCT),
    "tiny": TINY,
    "smollm2_135m": dataclasses.replace(
        TINY, name="smollm2_135m", connector=dataclasses.replace(TINY.connector, mlp=1536), llm=SMOLLM2_135M
    ),
}


def differences(
    part: str, source: VitConfig | ConnectorConfig | LlmConfig, wanted: VitConfig | ConnectorConfig | LlmConfig
) -> list[str]:
    """The fields in which two configs of one part ("llm") differ: ["llm.rope_theta: 1000000.0 -> 5000000.0", …]."""
    pairs = [(f.name, getattr(source, f.name), getattr(wanted, f.name)) for f in dataclasses.fields(wanted)]
    return [f"{part}.{name}: {a} -> {b}" for name, a, b in pairs if a != b]


def preset(name: str) -> Molmo2Config:
    """The architecture called `name`; raises ValueError with the known names if there is none."""
    if name not in PRESETS:
        raise ValueError(f"model preset {name!r} is unknown; the presets are {sorted(PRESETS)}")
    return PRESETS[name]
