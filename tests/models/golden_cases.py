"""The cases of the golden numbers: small models of every kind, their weights and inputs, and what is kept of outputs.

Nothing of this is stored: weights and pixels are drawn from seeded PCG64 streams, the rest of a row is the data code's.
Both sides make them here: make_goldens.py for transformers' Molmo2, test_goldens.py for ours.
"""

import dataclasses
import pathlib
import zlib
from collections.abc import Mapping

import numpy as np

from molmo2_jax.data import image, layout, tree
from molmo2_jax.data.schema import RowShape, empty_row
from molmo2_jax.models.config import TINY, ConnectorConfig, LlmConfig, Molmo2Config
from molmo2_jax.ops.rope import Yarn
from molmo2_jax.text.tokenizer import SPECIAL_TOKENS

FOLDER = pathlib.Path(__file__).parent / "goldens"
MEDIA = ("image", "video")
TILING = (1, 2)  # of the image: an overview and two overlapping views
TIMES = (0.0, 0.5, 0.9)  # of the video's frames
SHAPE = RowShape(tokens=576, crops=3, pooled=518)  # of both: the image fills it, so that one program serves both
Z_LOSS = 1e-4

# Softmax does not see a constant added to all keys of a query: these gradients are rounding.
SILENT = {"vit/blocks/attn/k/b", "connector/k/b"}


def _kind(**llm) -> Molmo2Config:
    """Four ViT blocks of which (2, 0) are read, three decoder layers, 320 base tokens; keywords change the decoder."""
    base = LlmConfig(
        width=64,
        layers=3,
        heads=4,
        kv_heads=2,
        head_dim=24,
        mlp=96,
        vocab=320,
        new_vocab=128,
        rope_theta=1_000_000.0,
        yarn=None,
        yarn_layers=(),
        norm_after=False,
        qk_norm="head",
        norm_eps=1e-6,
        tied=True,
    )
    return Molmo2Config(
        "golden",
        vit=dataclasses.replace(TINY.vit, width=48, heads=3, mlp=80, layers=4, feature_layers=(2, 0)),
        connector=ConnectorConfig(heads=3, head_dim=16, mlp=96),
        llm=dataclasses.replace(base, **llm),
    )


OLMO3 = {
    "kv_heads": 4,
    "rope_theta": 500_000.0,
    "yarn": Yarn(8.0, 1.2079441541679836, 32.0, 1.0, 1024),
    "yarn_layers": (0, 2),
    "norm_after": True,
    "qk_norm": "projection",
    "tied": False,
}
KINDS = {"qwen3_tied": _kind(), "qwen3_untied": _kind(tied=False), "olmo3": _kind(**OLMO3)}


class Tokens:
    """Stands for a tokenizer of 320 base tokens: the special tokens at their true offsets, text letter by letter."""

    vocab_size = 320

    def special(self, name: str) -> int:
        return self.vocab_size + SPECIAL_TOKENS.index(name)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights drawn for each name by itself, so that kinds share what they have in common.

    Large enough that no softmax is flat and no norm's scale is 1.
    """
    out = {}
    for name, shape in shapes.items():
        draw = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).normal(size=shape)
        out[name] = (1 + 0.1 * draw if name.endswith("/scale") else 0.12 * draw).astype(np.float32)
    return out


def row(medium: str) -> tuple[dict[str, np.ndarray], int, int]:
    """A row without batch dimension, its number of tokens and of visual tokens. Two questions, one after the other."""
    rng = np.random.Generator(np.random.PCG64(MEDIA.index(medium)))
    tok = Tokens()
    if medium == "image":
        visual, pooling = layout.image_tokens(TILING, tok), image.image_pooling(TILING)
        crops = image.image_views(rng.integers(0, 256, (300, 500, 3), np.uint8), TILING)
    else:
        visual, pooling = layout.video_tokens(TIMES, tok, "im", "example"), image.frame_pooling(len(TIMES))
        crops = np.stack([image.frame_view(rng.integers(0, 256, (50, 60, 3), np.uint8)) for _ in TIMES])
    turns = [
        tree.Turn(tree.ROOT, tok.encode("where?"), tok.encode("left"), None),
        tree.Turn(0, tok.encode("and now?"), tok.encode("it has gone"), None),
    ]
    never = [tok.special(name) for name in layout.VISUAL]
    example = tree.lay_out(visual, turns, bos=1, eos=1, length_weight=4.0, never_targets=never)
    parts = {"crops": crops, "pooling": pooling} | dataclasses.asdict(example)
    out = empty_row(SHAPE)
    for name, part in parts.items():
        out[name][: len(part)] = part
    return out, len(example.tokens), len(pooling)


def kept_vision(features_CPD: np.ndarray, visual_GD: np.ndarray) -> dict[str, np.ndarray]:
    """What is kept of the vision side, which all kinds share."""
    return {"features": features_CPD[:, ::97], "visual": visual_GD[::29]}


def kept(kind: str, logits_SV: np.ndarray, loss: float, gradients: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is kept of a kind's outputs: logits here and there and at the last tokens, norm and samples of gradients.

    gradients   float32[names, 1 + 16]: norm, 16 elements from the first to the last; names in alphabetical order
    """
    n = len(logits_SV)
    names = sorted(set(gradients) - SILENT)
    flat = [np.asarray(gradients[name], np.float32).ravel() for name in names]
    samples = [[np.linalg.norm(g), *g[np.linspace(0, g.size - 1, 16).astype(int)]] for g in flat]
    return {
        f"{kind}/logits": logits_SV[np.r_[0 : n - 32 : 31, n - 32 : n], ::5],
        f"{kind}/loss": np.float32(loss),
        f"{kind}/gradients": np.array(samples, np.float32),
        f"{kind}/names": np.array(names),
    }
