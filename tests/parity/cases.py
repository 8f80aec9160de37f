"""Small models of every kind, their weights, and rows of every medium: the inputs of both sides of the parity suite.

Only widths and vocabulary are small. Grouped queries, heads * head_dim != width, YaRN on some layers, two feature
layers in descending order, 128 new rows and 378x378 crops of 729 patches are as in the released models.
"""

import dataclasses
import functools
import re
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.media import crops
from data_pipelines.media.crops import PATCHES
from data_pipelines.media.pooling import frame_pooling, image_pooling
from data_pipelines.packing.schema import RowShape, empty_row
from data_pipelines.sequence import message_tree, visual_layout
from data_pipelines.text.tokenizer import SPECIAL_TOKENS
from molmo2_jax.models.config import TINY, ConnectorConfig, LlmConfig, Molmo2Config
from molmo2_jax.ops.rope import Yarn
from tests.data_pipelines.sequence.views import VIEW

MEDIA = ("text", "image", "images", "video")  # the rows of our batch, in this order
BATCH = MEDIA[:3]  # of transformers, which takes images or videos, not both
CROP_GRIDS = {"text": [], "image": [(2, 1)], "images": [(1, 1), (1, 2)], "video": []}
TIMES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.4)  # of the video's frames
SHAPE = RowShape(seq_len=1024, crops=8, pooled=910)  # of every row, so that all share one program

# Softmax ignores a constant added to all keys of a query: these gradients are rounding errors.
ZERO_GRADIENTS = {"vit/blocks/attn/k/b", "connector/k/b"}


def _kind(name: str, **llm) -> Molmo2Config:
    """Three ViT blocks of which (2, 0) are read, three decoder layers, 320 base tokens; keywords change the decoder."""
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
        name,
        vit=dataclasses.replace(TINY.vit, width=32, heads=2, mlp=48, layers=3, feature_layers=(2, 0)),
        connector=ConnectorConfig(heads=2, head_dim=16, mlp=96),
        llm=dataclasses.replace(base, **llm),
    )


OLMO3 = {
    "rope_theta": 500_000.0,
    "yarn": Yarn(8.0, 1.2079441541679836, 32.0, 1.0, 512),
    "yarn_layers": (0, 2),
    "norm_after": True,
    "qk_norm": "projection",
    "tied": False,
}
KINDS = {c.name: c for c in (_kind("qwen3_tied"), _kind("qwen3_untied", tied=False), _kind("olmo3", **OLMO3))}


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights drawn for each name separately (of either naming), so that kinds share the parameters they both have.

    Large enough that no softmax is flat, no norm's scale is 1 and no bias 0.
    """
    out = {}
    for name, shape in shapes.items():
        draw = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).normal(size=shape)
        around_1 = re.search(r"/scale$|norm\d?\.weight$", name)
        out[name] = (1 + 0.1 * draw if around_1 else 0.12 * draw).astype(np.float32)
    return out


def varied(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A model's weights with sharper attention and with layers that outweigh the embedding.

    With the weights as drawn, greedy answers end by repeating one token, which would prove little.
    """
    factors = {"llm/embed/base": 0.1} | {f"llm/blocks/attn/{x}_norm/scale": 3.0 for x in "qk"}
    return dict(weights) | {name: np.float32(factor) * weights[name] for name, factor in factors.items()}


class Tokens:
    """Stands for a tokenizer of 320 base tokens: special tokens at their true offsets, text byte by byte."""

    vocab_size = 320

    def special(self, name: str) -> int:
        return self.vocab_size + SPECIAL_TOKENS.index(name)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A row without batch dimension, and how many of its tokens, crops and visual tokens are used."""

    row: dict[str, np.ndarray]
    tokens: int
    crops: int
    pooled: int


@functools.cache
def case(medium: str, answered: bool) -> Case:
    """Two questions about a medium, one after the other; the second has no answer unless `answered`."""
    tok = Tokens()
    visual, pooling, pixels = _visual_input(medium, tok)
    turns = [
        message_tree.Turn(
            message_tree.ROOT, tok.encode(f"{medium}: where is it?"), tok.encode("on the left"), None, 1.0
        ),
        message_tree.Turn(
            0, tok.encode("and what comes then?"), tok.encode("it has gone") if answered else None, None, 1.0
        ),
    ]
    never = [tok.special(name) for name in visual_layout.VISUAL]
    example = message_tree.lay_out(visual, turns, bos=1, eos=1, length_weight=4.0, never_targets=never)
    row = empty_row(SHAPE)
    for name, part in ({"crops": pixels, "pooling": pooling} | dataclasses.asdict(example)).items():
        row[name][: len(part)] = part
    return Case(row, len(example.tokens), len(pixels), len(pooling))


def batch(cases: Sequence[Case]) -> dict[str, np.ndarray]:
    return {name: np.stack([case.row[name] for case in cases]) for name in cases[0].row}


def _visual_input(medium: str, tok: Tokens) -> tuple[visual_layout.VisualTokens, np.ndarray, np.ndarray]:
    """The tokens between BOS and the first question, int32[g, 9] pooling, uint8[c, 729, 588] crops."""
    rng = np.random.Generator(np.random.PCG64(MEDIA.index(medium)))

    def noise(*size):
        return rng.integers(0, 256, (*size, 3), np.uint8)

    if medium == "video":
        frames = np.stack([crops.frame_crop(noise(50, 60)) for _ in TIMES])
        visual = visual_layout.video_layout(TIMES, None, tok, VIEW).tokens(tok)
        return visual, frame_pooling(len(TIMES)), frames
    if medium == "text":
        return visual_layout.NoVisual().tokens(tok), np.empty((0, 9), np.int32), np.empty((0, 729, 588), np.uint8)
    tokens, groups, pooling, images = [], [], [], []
    for number, crop_grid in enumerate(CROP_GRIDS[medium], 1):
        name = tok.encode(f"Image {number}") if medium == "images" else []
        visual = visual_layout.images_layout([crop_grid], tok, VIEW.image_groups).tokens(tok)
        patches = image_pooling(crop_grid)
        tokens += [*name, *visual.tokens]
        groups += [0] * len(name) + [1] * len(visual.tokens)  # all images of an example are one group
        pooling.append(np.where(patches < 0, patches, patches + PATCHES * sum(map(len, images))))
        images.append(crops.image_crops(noise(300, 200 + 100 * number), crop_grid))
    slots = np.flatnonzero(np.array(tokens) == tok.special("<im_patch>"))
    visual = visual_layout.VisualTokens(np.array(tokens, np.int32), slots.astype(np.int32), np.array(groups, np.int32))
    return visual, np.concatenate(pooling), np.concatenate(images)
