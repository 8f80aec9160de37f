"""What a config must satisfy before anything is read, drawn or written. Each complaint names its key."""

import dataclasses
import math
from collections.abc import Mapping

import jax

from molmo2_jax import sharding
from molmo2_jax.data import schema
from molmo2_jax.data.token_order import TOKEN_ORDERS, row_index
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.layers import REMAT
from molmo2_jax.ops.attention import IMPLEMENTATIONS, STRATEGIES, check_supported
from molmo2_jax.ops.pallas_attention import LANES
from molmo2_jax.train.config import TrainConfig

CHOICES = {
    "model.attention": sorted(IMPLEMENTATIONS),
    "model.context": sorted(STRATEGIES),
    "model.token_order": sorted(TOKEN_ORDERS),
    "model.remat": sorted(REMAT),
    "model.vit_remat": sorted(REMAT),
    "model.dtype": ["bfloat16", "float32"],
    "data.missing": ["report", "stop"],
    "data.prompts": ["none", "templates"],
    "data.style_prefix": ["demo_or_style", "none", "style_and_length"],
    "data.points_format": ["html-v1", "html-v2"],
    "data.token_weights": ["length", "one"],
    "data.frame_sampling": ["scenes", "uniform", "uniform_last_frame"],
    "data.timestamps": ["none", "numbered-frames", "per-frame", "per-frame-compact"],
    "data.subtitles": ["all", "frame_1", "ignore"],
    "data.overflow": ["drop", "split"],
    "data.frame_tokens": ["frame", "im"],
    "data.image_groups": ["example", "frame"],
}

NAMED = {
    "compiler",
    "optim.groups",
    "init_from",
    "data.mixture",
    "data.mixture.*.datasets",
}  # mappings whose keys are names

# Key -> smallest value, largest value, and whether the smallest itself is allowed. `*` is any name.
RANGES = {
    "seed": (0, math.inf, True),
    "steps": (1, math.inf, True),
    "batch": (1, math.inf, True),
    "microbatches": (1, math.inf, True),
    "z_loss": (0, math.inf, True),
    "log_every": (1, math.inf, True),
    "model.loss_chunk": (1, math.inf, True),
    "model.residual_dropout": (0, 0.99, True),
    "model.response_dropout": (0, 0.99, True),
    "data.mixture.*.rate": (0, math.inf, True),
    "data.mixture.*.datasets.*.size": (0, math.inf, True),
    "data.mixture.*.datasets.*.rate": (0, math.inf, True),
    "data.mixture.*.datasets.*.weight": (0, math.inf, False),
    "data.mixture.*.datasets.*.high_res": (0, 1, True),
    "data.seq_len": (1, math.inf, True),
    "data.crops": (0, math.inf, True),
    "data.pooled": (0, math.inf, True),
    "data.max_frames": (1, math.inf, True),
    "data.fps": (0, math.inf, False),
    "data.max_subtitle_tokens": (1, math.inf, True),
    "data.max_crops": (1, math.inf, True),
    "data.high_res_crops": (1, math.inf, True),
    "data.max_images": (1, math.inf, True),
    "data.vision_shards": (1, math.inf, True),
    "data.length_weight": (0, math.inf, False),
    "data.pool": (1, math.inf, True),
    "data.workers": (0, math.inf, True),
    "data.prefetch": (1, math.inf, True),
    "data.max_failure_rate": (0, 1, True),
    "optim.groups.*.lr": (0, math.inf, True),
    "optim.groups.*.warmup": (0, math.inf, True),
    "optim.b1": (0, 1, True),
    "optim.b2": (0, 1, True),
    "optim.eps": (0, math.inf, False),
    "optim.weight_decay": (0, math.inf, True),
    "optim.clip": (0, math.inf, False),
    "optim.end_lr": (0, 1, True),
    "checkpoint.every": (1, math.inf, True),
    "checkpoint.keep": (1, math.inf, True),
}


def check_values(c: TrainConfig) -> None:
    """ValueError with every value that is out of its range or none of its choices."""
    wrong = []
    for key, name, value in _leaves("", "", dataclasses.asdict(c)):
        if name in CHOICES and value not in CHOICES[name]:
            wrong.append(f"{key} = {value!r} is unknown; there are {CHOICES[name]}")
        if name in RANGES and value is not None:
            low, high, closed = RANGES[name]
            if not (low <= value <= high and (closed or value > low)):  # NaN is in no range
                most = "" if math.isinf(high) else f", at most {high}"
                wrong.append(f"{key} = {value} must be {'at least' if closed else 'more than'} {low}{most}")
    if wrong:
        raise ValueError("; ".join(wrong))


def _leaves(path: str, name: str, tree: Mapping):
    """(key, key with * for names that people give, value) of every value."""
    for key, value in tree.items():
        general = f"{name}*" if name.removesuffix(".") in NAMED else f"{name}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(f"{path}{key}.", f"{general}.", value)
        else:
            yield f"{path}{key}", general, value


def check_fits(c: TrainConfig, a: Molmo2Config, mesh: jax.sharding.Mesh) -> None:
    """ValueError naming the first number of config or model that the mesh does not divide or the data cannot serve."""
    if c.batch % c.microbatches:
        raise ValueError(f"batch = {c.batch} cannot be cut into microbatches = {c.microbatches}")
    sharding.check_divides(
        {
            "batch": (c.batch, sharding.ROWS),
            "batch / microbatches": (c.batch // c.microbatches, sharding.ROWS),
            "data.seq_len": (c.data.seq_len, sharding.CONTEXT),
            "data.crops": (c.data.crops, sharding.CONTEXT),
            "data.pooled": (c.data.pooled, sharding.CONTEXT),
            "llm heads": (a.llm.heads, sharding.TENSOR),
            "llm kv_heads": (a.llm.kv_heads, sharding.TENSOR),
            "llm mlp": (a.llm.mlp, sharding.TENSOR),
            "llm vocab": (a.llm.vocab, sharding.TENSOR),
            "llm width": (a.llm.width, sharding.FSDP),
            "vit heads": (a.vit.heads, sharding.TENSOR),
            "vit mlp": (a.vit.mlp, sharding.TENSOR),
            "vit width": (a.vit.width, sharding.FSDP),
            "connector heads": (a.connector.heads, sharding.TENSOR),
            "connector mlp": (a.connector.mlp, sharding.TENSOR),
        },
        mesh,
    )
    check_supported(c.model.attention, c.model.context, a.llm.kv_heads, mesh)
    if c.model.attention == "pallas":
        platform = mesh.devices.flat[0].platform
        if platform != "tpu":
            raise ValueError(f'model.attention = "pallas" is for TPUs, the devices are {platform}s: use "blockwise"')
        if a.llm.head_dim % LANES:
            raise ValueError(
                f'model.attention = "pallas" wants head dims in steps of {LANES}, {a.name} has {a.llm.head_dim}: '
                'use "blockwise"'
            )
    row_index(c.model.token_order, 0, c.data.seq_len, mesh.shape[sharding.CONTEXT])  # raises where it cannot cut a row
    if c.data.vocab_size != a.llm.vocab:
        raise ValueError(f"data.vocab_size = {c.data.vocab_size}, but {a.name} embeds {a.llm.vocab} base tokens")
    if c.data.vision_shards != mesh.shape[sharding.CONTEXT]:
        raise ValueError(
            f"data.vision_shards = {c.data.vision_shards}, but mesh.context = {mesh.shape[sharding.CONTEXT]}: each "
            "device along context encodes one shard"
        )
    if (a.vit.patches, a.vit.patch_pixels) != (schema.PATCHES, schema.PATCH_PIXELS):
        raise ValueError(f"{a.name} wants {a.vit.patches} patches of {a.vit.patch_pixels} values a crop")
