"""Which tensor of a Hugging Face checkpoint is which parameter: one reversible line per kind of tensor.

    ("llm/blocks/attn/q/w",), ("model.language_model.layers.{l}.self_attn.q_proj.weight",), "(n h) d -> d n h"

reads: tensor [N*H, D] of layer l, its axes split and moved, is layer l of parameter [L, D, N, H]. If a rule names
several parameters, their rows are concatenated in the tensor; if it names several keys, the tensors' rows are:

    q, k, v       att_proj.weight [(N + 2K) * H, D] = rows of q, then k, then v
    base, new     wte.embedding [V, D] and wte.new_embedding [128, D] = rows of both tables

Six formats: Molmo2 as released, Molmo2 as transformers names its tensors in memory, and the models it starts from:
Qwen3, Llama (Qwen3 without QK norm), OLMo3 and SigLIP2's vision tower. Sources of the names: published checkpoints,
transformers 5.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import einops
import numpy as np

from data_pipelines.media.crops import PATCH
from molmo2_jax.models.config import LlmConfig


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of tensor. `{l}` in a key is the layer of a stacked parameter.

    `pattern` is an einops pattern from the tensor's rows to the parameter. `sizes` gives the axes whose length neither
    side determines. A `copy` repeats a parameter of another rule: it is compared on reading and written on writing.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    pattern: str
    sizes: tuple[tuple[str, int], ...] = ()
    copy: bool = False


@dataclasses.dataclass(frozen=True)
class Piece:
    """One layer of a stacked parameter, or a parameter that is not stacked, as some of the rows of a tensor."""

    name: str
    layer: int | None
    shape: tuple[int, ...]  # of this layer of the parameter
    pattern: str
    sizes: tuple[tuple[str, int], ...]

    @property
    def rows_shape(self) -> tuple[int, ...]:
        """Shape of these rows in the tensor."""
        left, right = self.pattern.split(" -> ")
        lengths = dict(self.sizes)
        for axis, length in zip(_axes(right), self.shape, strict=True):
            if len(axis) == 1:
                lengths[axis[0]] = length
        return tuple(int(np.prod([lengths[name] for name in axis])) for axis in _axes(left))

    def to_layer(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the tensor -> layer of the parameter; a view where numpy can give one."""
        right = self.pattern.split(" -> ")[1]
        known = {axis[0]: n for axis, n in zip(_axes(right), self.shape, strict=True) if len(axis) == 1}
        return einops.rearrange(rows, self.pattern, **{**known, **dict(self.sizes)})

    def to_rows(self, layer: np.ndarray) -> np.ndarray:
        """Layer of the parameter -> rows of the tensor."""
        left, right = self.pattern.split(" -> ")
        return einops.rearrange(layer, f"{right} -> {left}", **dict(self.sizes))


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One or several tensors of a checkpoint; their rows, in order, are those of `pieces`."""

    keys: tuple[str, ...]
    pieces: tuple[Piece, ...]
    copy: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together."""
        first = self.pieces[0].rows_shape
        return (sum(piece.rows_shape[0] for piece in self.pieces), *first[1:])


def _axes(side: str) -> list[tuple[str, ...]]:
    """Axes of one side of a pattern: "(n h) d" -> [("n", "h"), ("d",)]."""
    return [tuple(axis.strip("()").split()) for axis in re.findall(r"\([^)]*\)|\S+", side)]


def expand(
    rules: Iterable[Rule], shapes: Mapping[str, tuple[int, ...]], stacked: Callable[[str], bool]
) -> list[Tensor]:
    """The rules, written out for every layer. A rule of parameters that are not in `shapes` is left out.

    Args:
      shapes: {parameter: shape}; stacked parameters have their layers in front.
      stacked: whether the parameter of this name is stacked.
    """
    out = []
    for rule in rules:
        if not set(rule.names) <= shapes.keys():
            continue
        layers = range(shapes[rule.names[0]][0]) if stacked(rule.names[0]) else (None,)
        for layer in layers:
            pieces = [
                Piece(name, layer, shapes[name] if layer is None else shapes[name][1:], rule.pattern, rule.sizes)
                for name in rule.names
            ]
            keys = tuple(key.replace("{l}", str(layer)) for key in rule.keys)
            out.append(Tensor(keys, tuple(pieces), rule.copy))
    return out


def _linear(name: str, key: str, pattern: str) -> list[Rule]:
    """Weight and bias of a linear map. The bias has the output axis of the weight, which comes first in torch."""
    out = " ".join(_axes(pattern.split(" -> ")[0])[0])
    group = f"({out})" if " " in out else out
    bias = Rule((f"{name}/b",), (f"{key}.bias",), f"{group} -> {out}")
    return [Rule((f"{name}/w",), (f"{key}.weight",), pattern), bias]


def _layer_norm(name: str, key: str) -> list[Rule]:
    return [
        Rule((f"{name}/scale",), (f"{key}.weight",), "d -> d"),
        Rule((f"{name}/bias",), (f"{key}.bias",), "d -> d"),
    ]


def _vit(blocks: str, names: Sequence[str]) -> list[Rule]:
    """Blocks of the vision transformer; `names`: the format's names of norm, q, k, v, output, norm, MLP up and down."""
    attn_norm, q, k, v, o, mlp_norm, up, down = (f"{blocks}.{{l}}.{name}" for name in names)
    into = "(n h) d -> d n h"
    return [
        *_layer_norm("vit/blocks/attn_norm", attn_norm),
        *_linear("vit/blocks/attn/q", q, into),
        *_linear("vit/blocks/attn/k", k, into),
        *_linear("vit/blocks/attn/v", v, into),
        *_linear("vit/blocks/attn/o", o, "d (n h) -> n h d"),
        *_layer_norm("vit/blocks/mlp_norm", mlp_norm),
        *_linear("vit/blocks/up", up, "f d -> d f"),
        *_linear("vit/blocks/down", down, "d f -> f d"),
    ]


def _connector(pooling: str, projector: str, names: Sequence[str]) -> list[Rule]:
    """Attention pooling and SwiGLU projector; `names`: the format's names of q, k, v, output, gate, up, down."""
    q, k, v, o = (f"{pooling}.{name}" for name in names[:4])
    gate, up, down = (f"{projector}.{name}.weight" for name in names[4:])
    return [
        *_linear("connector/q", q, "(n h) d -> d n h"),
        *_linear("connector/k", k, "(n h) d -> d n h"),
        *_linear("connector/v", v, "(n h) d -> d n h"),
        *_linear("connector/o", o, "d (n h) -> n h d"),
        Rule(("connector/gate/w",), (gate,), "f d -> d f"),
        Rule(("connector/up/w",), (up,), "f d -> d f"),
        Rule(("connector/down/w",), (down,), "d f -> f d"),
    ]


_Q, _K, _V = (f"llm/blocks/attn/{x}/w" for x in "qkv")
_GATE, _UP = "llm/blocks/mlp/gate/w", "llm/blocks/mlp/up/w"


def _decoder(c: LlmConfig, layers: str, final: str, names: Sequence[str]) -> list[Rule]:
    """What all decoders share; `names`: the format's names of output, QK norms, attention norm, MLP norm, MLP down."""
    o, q_norm, k_norm, attn_norm, mlp_norm, down = (f"{layers}.{{l}}.{name}.weight" for name in names)
    rules = [
        Rule(("llm/blocks/attn/o/w",), (o,), "d (n h) -> n h d"),
        Rule(("llm/blocks/attn_norm/scale",), (attn_norm,), "d -> d"),
        Rule(("llm/blocks/mlp_norm/scale",), (mlp_norm,), "d -> d"),
        Rule(("llm/blocks/mlp/down/w",), (down,), "d f -> f d"),
        Rule(("llm/norm/scale",), (final,), "d -> d"),
        _head(c),
    ]
    if c.qk_norm != "none":
        scale = "(n h) -> n h" if c.qk_norm == "projection" else "h -> h"
        rules.append(Rule(("llm/blocks/attn/q_norm/scale",), (q_norm,), scale))
        rules.append(Rule(("llm/blocks/attn/k_norm/scale",), (k_norm,), scale))
    return rules


def _head(c: LlmConfig) -> Rule:
    name = "llm/embed/base" if c.tied else "llm/head"
    return Rule((name,), ("lm_head.weight",), "v d -> v d", copy=c.tied)


def _separate_projections(layers: str) -> list[Rule]:
    """q, k, v, gate and up as separate tensors."""
    into = {_Q: "self_attn.q_proj", _K: "self_attn.k_proj", _V: "self_attn.v_proj"}
    rules = [Rule((n,), (f"{layers}.{{l}}.{key}.weight",), "(n h) d -> d n h") for n, key in into.items()]
    mlp = {_GATE: "mlp.gate_proj", _UP: "mlp.up_proj"}
    return rules + [Rule((n,), (f"{layers}.{{l}}.{key}.weight",), "f d -> d f") for n, key in mlp.items()]


_EMBED = ("llm/embed/base", "llm/embed/new")


def released(c: LlmConfig) -> list[Rule]:
    """Molmo2 as released: fused projections, two embedding tables (706 tensors for 4B and 8B, 674 for O-7B)."""
    vision, text = "model.vision_backbone", "model.transformer"
    tower, blocks = f"{vision}.image_vit", f"{text}.blocks"
    fused = f"{blocks}.{{l}}"
    return [
        Rule(("vit/positions",), (f"{tower}.positional_embedding",), "p d -> p d"),
        *_linear("vit/patch", f"{tower}.patch_embedding", "d x -> x d"),
        *_vit(
            f"{tower}.transformer.resblocks",
            (
                "attention_norm",
                *(f"attention.w{x}" for x in "qkvo"),
                "ffn_norm",
                "feed_forward.w1",
                "feed_forward.w2",
            ),
        ),
        *_connector(
            f"{vision}.image_pooling_2d", f"{vision}.image_projector", ("wq", "wk", "wv", "wo", "w1", "w3", "w2")
        ),
        Rule(_EMBED, (f"{text}.wte.embedding", f"{text}.wte.new_embedding"), "v d -> v d"),
        Rule((_Q, _K, _V), (f"{fused}.self_attn.att_proj.weight",), "(n h) d -> d n h"),
        Rule((_UP, _GATE), (f"{fused}.mlp.ff_proj.weight",), "f d -> d f"),
        *_decoder(
            c,
            blocks,
            f"{text}.ln_f.weight",
            ("self_attn.attn_out", "self_attn.q_norm", "self_attn.k_norm", "attn_norm", "ff_norm", "mlp.ff_out"),
        ),
    ]


_PROJECTIONS = tuple(f"self_attn.{x}_proj" for x in "qkvo")
_NORMS = ("self_attn.o_proj", "self_attn.q_norm", "self_attn.k_norm")


def native(c: LlmConfig) -> list[Rule]:
    """Molmo2 as transformers holds it in memory: separate projections, one embedding table."""
    tower, text, projector = "model.vision_tower", "model.language_model", "model.multi_modal_projector"
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return [
        Rule(("vit/positions",), (f"{tower}.positional_embedding",), "p d -> p d"),
        *_linear("vit/patch", f"{tower}.patch_embedding", "d x -> x d"),
        *_vit(f"{tower}.layers", ("layer_norm1", *_PROJECTIONS, "layer_norm2", "mlp.fc1", "mlp.fc2")),
        *_connector(f"{projector}.image_pooling_2d", f"{projector}.image_projector", names),
        Rule(_EMBED, (f"{text}.embed_tokens.weight",), "v d -> v d"),
        *_separate_projections(f"{text}.layers"),
        *_decoder(
            c,
            f"{text}.layers",
            f"{text}.norm.weight",
            (*_NORMS, "input_layernorm", "post_attention_layernorm", "mlp.down_proj"),
        ),
    ]


def base_llm(c: LlmConfig) -> list[Rule]:
    """Qwen3, Llama and OLMo3. OLMo3 normalises after each sub-layer and has other names for these norms."""
    norms = ("post_attention_layernorm", "post_feedforward_layernorm")
    norms = norms if c.norm_after else ("input_layernorm", "post_attention_layernorm")
    return [
        Rule(("llm/embed/base",), ("model.embed_tokens.weight",), "v d -> v d"),
        *_separate_projections("model.layers"),
        *_decoder(c, "model.layers", "model.norm.weight", (*_NORMS, *norms, "mlp.down_proj")),
    ]


def siglip2(prefix: str, convolution: bool) -> list[Rule]:
    """SigLIP2's vision tower.

    Args:
      prefix: "vision_model." in published files, "" as transformers 5 writes them.
      convolution: whether the patch embedding is a convolution, as in most checkpoints. Its pixels are ordered
        (channel, row, column); those of the parameter are ordered (row, column, channel).
    """
    patch = f"{prefix}embeddings.patch_embedding"
    into = ("d c y x -> (y x c) d", (("c", 3), ("y", PATCH), ("x", PATCH))) if convolution else ("d x -> x d", ())
    out = tuple(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out"))
    return [
        Rule(("vit/positions",), (f"{prefix}embeddings.position_embedding.weight",), "p d -> p d"),
        Rule(("vit/patch/w",), (f"{patch}.weight",), *into),
        Rule(("vit/patch/b",), (f"{patch}.bias",), "d -> d"),
        *_vit(f"{prefix}encoder.layers", ("layer_norm1", *out, "layer_norm2", "mlp.fc1", "mlp.fc2")),
    ]


# Tensors of a SigLIP2 checkpoint that Molmo2 does not have: the text tower, the pooling head, the last norm.
SIGLIP2_UNUSED = re.compile(r"text_model\..*|logit_(scale|bias)|(vision_model\.)?(head|post_layernorm)\..*")
