"""Small models of every kind, and rows for them, for the tests of models, weights, training and generation."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from data_pipelines.packing.schema import RowShape, empty_row
from molmo2_jax.models.config import TINY, Molmo2Config
from molmo2_jax.models.run_config import RunConfig
from molmo2_jax.ops.rope import Yarn

SHAPE = RowShape(seq_len=64, crops=2, pooled=12)

RUN = RunConfig(
    preset="tiny",
    dtype="float32",
    attention="blockwise",
    context="all_gather",
    token_order="contiguous",
    remat="none",
    vit_remat="none",
    loss_chunk=32,
    residual_dropout=0.0,
    response_dropout=0.0,
)


def small(**llm) -> Molmo2Config:
    """Two ViT blocks, two decoder layers, 320 base tokens; keyword arguments change the decoder."""
    base = dataclasses.replace(TINY.llm, width=32, layers=2, heads=4, kv_heads=2, head_dim=12, mlp=48, vocab=320)
    return dataclasses.replace(
        TINY,
        name="small",
        vit=dataclasses.replace(TINY.vit, width=16, heads=2, mlp=24, layers=2, feature_layers=(1, 0)),
        connector=dataclasses.replace(TINY.connector, heads=2, head_dim=8, mlp=48),
        llm=dataclasses.replace(base, **llm),
    )


OLMO = {
    "kv_heads": 4,
    "norm_after": True,
    "qk_norm": "projection",
    "tied": False,
    "yarn": Yarn(8.0, 1.2, 32.0, 1.0, 16),
    "yarn_layers": (1,),
}
KINDS = {"qwen3_tied": small(), "qwen3_untied": small(tied=False), "olmo3": small(**OLMO)}


def random_weights(shapes: Mapping[str, tuple[int, ...]], seed: int = 0, scale: float = 0.2) -> dict[str, np.ndarray]:
    """Weights for the shapes of a structure, large enough that no softmax is flat and no norm's scale is 1."""
    rng = np.random.default_rng(seed)
    draws = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: 1 + 0.1 * x if name.endswith("/scale") else scale * x for name, x in draws.items()}


def rows(c: Molmo2Config, batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
    """Packed rows: an example with 12 visual tokens, two branches under it, a text example, padding.

    tokens   0 | 1..12 visual | 13..15 root | 16..27 branch A | 28..39 branch B | 40..59 text | 60..63 padding
    """
    rng = np.random.default_rng(seed)
    row = {name: np.stack([a] * batch) for name, a in empty_row(SHAPE).items()}
    row["tokens"][:, :60] = rng.integers(0, c.llm.vocab, (batch, 60))
    row["tokens"][:, 1:13] = c.llm.vocab + 2
    row["targets"][:, :60] = rng.integers(0, c.llm.vocab, (batch, 60))
    row["loss_weights"][:, 18:60] = rng.random((batch, 42)) * (rng.random((batch, 42)) < 0.6)
    for start, stop, first, until in ((0, 16, 0, 40), (16, 28, 16, 28), (28, 40, 16, 40), (40, 60, 0, 60)):
        row["positions"][:, start:stop] = first + np.arange(stop - start)
        row["visible_until"][:, start:stop] = until
    row["image_group"][:, 1:13] = 1
    row["crops"][:] = rng.integers(0, 256, row["crops"].shape)
    row["pooling"][:] = rng.integers(0, 2 * 729, row["pooling"].shape)
    row["pooling"][:, 6:, 4:] = -1  # 2x2 windows leave five of nine indices unused
    row["visual_slots"][:] = np.arange(1, 13)
    return row
