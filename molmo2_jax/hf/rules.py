"""Which tensor of a Hugging Face checkpoint is which parameter: one reversible line per kind of tensor.

    ("llm/blocks/attn/q/w",), ("model.language_model.layers.{l}.self_attn.q_proj.weight",), "(n h) d -> d n h"

reads: tensor [N*H, D] of layer l, axes split and moved, is layer l of our parameter [L, D, N, H]. Where a rule names
several parameters, they lie one below the other in their tensor; the rows of several keys follow each other, too:

    q, k, v       att_proj.weight [(N + 2K) * H, D] = rows of q, then k, then v
    base, new     wte.embedding [V, D] and wte.new_embedding [128, D] = rows of both tables

Six formats: Molmo2 as released, Molmo2 as transformers names it in memory, and the models it starts from: Qwen3, Llama
(Qwen3 without QK norm), OLMo3 and SigLIP2's vision tower. Sources of the names: published checkpoints, transformers 5.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import einops
import numpy as np

from molmo2_jax.models.config import LlmConfig


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of tensor. `{l}` in a key is the layer of a stacked parameter.

    `pattern` is einops', from one parameter's rows of theirs to ours. `sizes` are those axes that neither side shows.
    A `copy` repeats a parameter that another rule carries: it is checked when read, written when written.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    pattern: str
    sizes: tuple[tuple[str, int], ...] = ()
    copy: bool = False


@dataclasses.dataclass(frozen=True)
class Piece:
    """One layer of a parameter (or the whole of one that is not stacked) within the rows of a tensor."""

    name: str
    layer: int | None
    shape: tuple[int, ...]  # of this layer, ours
    pattern: str
    sizes: tuple[tuple[str, int], ...]

    @property
    def theirs(self) -> tuple[int, ...]:
        """Shape of these rows in their tensor."""
        left, right = self.pattern.split(" -> ")
        lengths = dict(self.sizes)
        for axis, length in zip(_axes(right), self.shape, strict=True):
            if len(axis) == 1:
                lengths[axis[0]] = length
        return tuple(int(np.prod([lengths[name] for name in axis])) for axis in _axes(left))

    def to_ours(self, rows: np.ndarray) -> np.ndarray:
        """Their rows -> our layer; a view where numpy can give one."""
        right = self.pattern.split(" -> ")[1]
        known = {axis[0]: n for axis, n in zip(_axes(right), self.shape, strict=True) if len(axis) == 1}
        return einops.rearrange(rows, self.pattern, **{**known, **dict(self.sizes)})

    def to_theirs(self, layer: np.ndarray) -> np.ndarray:
        """Our layer -> their rows."""
        left, right = self.pattern.split(" -> ")
        return einops.rearrange(layer, f"{right} -> {left}", **dict(self.sizes))


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One or several tensors of a checkpoint whose rows are those of `pieces`, in order."""

    keys: tuple[str, ...]
    pieces: tuple[Piece, ...]
    copy: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together."""
        first = self.pieces[0].theirs
        return (sum(piece.theirs[0] for piece in self.pieces), *first[1:])


def _axes(side: str) -> list[tuple[str, ...]]:
    """Axes of one side of a pattern: "(n h) d" -> [("n", "h"), ("d",)]."""
    return [tuple(axis.strip("()").split()) for axis in re.findall(r"\([^)]*\)|\S+", side)]


def expand(
    rules: Iterable[Rule], shapes: Mapping[str, tuple[int, ...]], stacked: Callable[[str], bool]
) -> list[Tensor]:
    """The rules for every layer of a model's parameters. Rules of parameters that `shapes` does not have are left out.

    Args:
      shapes: of the parameters, stacked ones with their layers in front.
      stacked: whether a parameter is.
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
    """Weight and bias of a linear map; the bias has the outputs of the weight, which torch has in front."""
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
    """Blocks of the vision transformer; `names` are theirs for norm, q, k, v, output, norm, and the two of the MLP."""
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
    """Attention pooling and SwiGLU projector; `names` are theirs for q, k, v, output, gate, up, down."""
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
    """What all decoders have alike; `names` are theirs for output, QK norms, the norms of attention and MLP, down."""
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


def _separate(layers: str) -> list[Rule]:
    """Projections that are tensors of their own."""
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
    """Molmo2 as transformers has it in memory: separate projections, one embedding table."""
    tower, text, projector = "model.vision_tower", "model.language_model", "model.multi_modal_projector"
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return [
        Rule(("vit/positions",), (f"{tower}.positional_embedding",), "p d -> p d"),
        *_linear("vit/patch", f"{tower}.patch_embedding", "d x -> x d"),
        *_vit(f"{tower}.layers", ("layer_norm1", *_PROJECTIONS, "layer_norm2", "mlp.fc1", "mlp.fc2")),
        *_connector(f"{projector}.image_pooling_2d", f"{projector}.image_projector", names),
        Rule(_EMBED, (f"{text}.embed_tokens.weight",), "v d -> v d"),
        *_separate(f"{text}.layers"),
        *_decoder(
            c,
            f"{text}.layers",
            f"{text}.norm.weight",
            (*_NORMS, "input_layernorm", "post_attention_layernorm", "mlp.down_proj"),
        ),
    ]


def base_llm(c: LlmConfig) -> list[Rule]:
    """Qwen3, Llama and OLMo3; the last one normalises after its sub-layers and names those norms otherwise."""
    norms = ("post_attention_layernorm", "post_feedforward_layernorm")
    norms = norms if c.norm_after else ("input_layernorm", "post_attention_layernorm")
    return [
        Rule(("llm/embed/base",), ("model.embed_tokens.weight",), "v d -> v d"),
        *_separate("model.layers"),
        *_decoder(c, "model.layers", "model.norm.weight", (*_NORMS, *norms, "mlp.down_proj")),
    ]


def siglip2(prefix: str, convolution: bool) -> list[Rule]:
    """SigLIP2's vision tower. Patches are convolved by most checkpoints; ours lie as (row, column, channel).

    `prefix`: "vision_model." in published files, "" as transformers 5 writes them.
    """
    side = 14
    patch = f"{prefix}embeddings.patch_embedding"
    into = ("d c y x -> (y x c) d", (("c", 3), ("y", side), ("x", side))) if convolution else ("d x -> x d", ())
    out = tuple(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out"))
    return [
        Rule(("vit/positions",), (f"{prefix}embeddings.position_embedding.weight",), "p d -> p d"),
        Rule(("vit/patch/w",), (f"{patch}.weight",), *into),
        Rule(("vit/patch/b",), (f"{patch}.bias",), "d -> d"),
        *_vit(f"{prefix}encoder.layers", ("layer_norm1", *out, "layer_norm2", "mlp.fc1", "mlp.fc2")),
    ]


# Tensors of a SigLIP2 checkpoint that Molmo2 does not have: the text tower, the pooling head, the last norm.
SIGLIP2_UNUSED = re.compile(r"text_model\..*|logit_(scale|bias)|(vision_model\.)?(head|post_layernorm)\..*")
