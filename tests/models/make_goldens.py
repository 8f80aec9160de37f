"""Makes goldens/*.npz with the Molmo2 of transformers, an implementation that shares no code with ours.

    pip install torch==2.13.0 transformers==5.23.0      (CPU builds; beside this project, which does not need them)
    python -m tests.models.make_goldens                 from the top of the checkout, about a minute

Everything is float32 with eager attention. What makes the two comparable:
  * one example a row, its turns in a chain: transformers knows neither packing nor branches;
  * `mm_token_type_ids` is 1 at every token of the image or the frames (also their start, end and column tokens), and
    all of these see each other in both directions, across frames too: our image_groups = "example";
  * frames are wrapped in <im_start> ... <im_end>, as by the released processors;
  * the loss is ours, made of transformers' logits: sum(w * CE) / sum(w) + 1e-4 * sum(w * logsumexp^2) / sum(w).

Our parameters are the leaves and transformers' are views of them, so gradients come out by our names and in our shapes.
"""

import jax
import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers.models.molmo2 import configuration_molmo2 as theirs
from transformers.models.molmo2.modeling_molmo2 import Molmo2ForConditionalGeneration

from molmo2_jax import sharding
from molmo2_jax.data import image
from molmo2_jax.models import params as parameters
from molmo2_jax.models.config import Molmo2Config
from tests.models import golden_cases as cases

# transformers' module, our parameters, leading dimensions of our weight that are inputs. {l} is a layer.
LINEARS = [
    ("model.vision_tower.patch_embedding", "vit/patch", 1),
    *((f"model.vision_tower.layers.{{l}}.self_attn.{x}_proj", f"vit/blocks/attn/{x}", 1) for x in "qkv"),
    ("model.vision_tower.layers.{l}.self_attn.o_proj", "vit/blocks/attn/o", 2),
    ("model.vision_tower.layers.{l}.mlp.fc1", "vit/blocks/up", 1),
    ("model.vision_tower.layers.{l}.mlp.fc2", "vit/blocks/down", 1),
    *((f"model.multi_modal_projector.image_pooling_2d.{x}_proj", f"connector/{x}", 1) for x in "qkv"),
    ("model.multi_modal_projector.image_pooling_2d.o_proj", "connector/o", 2),
    *((f"model.multi_modal_projector.image_projector.{x}_proj", f"connector/{x}", 1) for x in ("gate", "up", "down")),
    *((f"model.language_model.layers.{{l}}.self_attn.{x}_proj", f"llm/blocks/attn/{x}", 1) for x in "qkv"),
    ("model.language_model.layers.{l}.self_attn.o_proj", "llm/blocks/attn/o", 2),
    *((f"model.language_model.layers.{{l}}.mlp.{x}_proj", f"llm/blocks/mlp/{x}", 1) for x in ("gate", "up", "down")),
]
NORMS = [
    ("model.vision_tower.layers.{l}.layer_norm1", "vit/blocks/attn_norm"),
    ("model.vision_tower.layers.{l}.layer_norm2", "vit/blocks/mlp_norm"),
    *((f"model.language_model.layers.{{l}}.self_attn.{x}_norm", f"llm/blocks/attn/{x}_norm") for x in "qk"),
    ("model.language_model.layers.{l}.input_layernorm", "llm/blocks/attn_norm"),
    ("model.language_model.layers.{l}.post_attention_layernorm", "llm/blocks/mlp_norm"),
    ("model.language_model.norm", "llm/norm"),
]


def their_model(c: Molmo2Config) -> Molmo2ForConditionalGeneration:
    """transformers' model of an architecture; its own weights are never used."""
    rope = {"rope_type": "default", "rope_theta": c.llm.rope_theta}
    if y := c.llm.yarn:
        rope |= {"rope_type": "yarn", "factor": y.factor, "attention_factor": y.attention_factor}
        rope |= {"beta_fast": y.beta_fast, "beta_slow": y.beta_slow}
        rope["original_max_position_embeddings"] = y.original_positions
    heads = {"num_attention_heads": c.connector.heads, "num_key_value_heads": c.connector.heads}
    tok = cases.Tokens()
    config = theirs.Molmo2Config(
        vision_config={
            "hidden_size": c.vit.width,
            "intermediate_size": c.vit.mlp,
            "num_hidden_layers": c.vit.layers,
            "num_attention_heads": c.vit.heads,
            "num_key_value_heads": c.vit.heads,
            "head_dim": c.vit.head_dim,
        },
        adapter_config=heads
        | {
            "vision_feature_layer": list(c.vit.feature_layers),
            "hidden_size": c.vit.width,
            "head_dim": c.connector.head_dim,
            "intermediate_size": c.connector.mlp,
            "text_hidden_size": c.llm.width,
        },
        text_config={
            "hidden_size": c.llm.width,
            "num_hidden_layers": c.llm.layers,
            "num_attention_heads": c.llm.heads,
            "num_key_value_heads": c.llm.kv_heads,
            "head_dim": c.llm.head_dim,
            "intermediate_size": c.llm.mlp,
            "vocab_size": c.llm.vocab,
            "additional_vocab_size": c.llm.new_vocab,
            "max_position_embeddings": 8192,  # more than a case has; YaRN warns where it is not factor * original
            "qk_norm_type": {"head": "qwen3", "projection": "olmo"}[c.llm.qk_norm],
            "norm_after": c.llm.norm_after,
            "rms_norm_eps": c.llm.norm_eps,
            "rope_parameters": rope,
            "rope_scaling_layers": list(c.llm.yarn_layers),
        },
        image_patch_id=tok.special("<im_patch>"),
    )
    config._attn_implementation = "eager"
    return Molmo2ForConditionalGeneration(config).eval()


def renamed(p: dict[str, torch.Tensor], c: Molmo2Config) -> dict[str, torch.Tensor]:
    """Our parameters by transformers' names and in its shapes."""
    out = {
        "model.vision_tower.positional_embedding": p["vit/positions"],
        "model.language_model.embed_tokens.weight": torch.cat([p["llm/embed/base"], p["llm/embed/new"]]),
        "lm_head.weight": p["llm/embed/base"] if c.llm.tied else p["llm/head"],
    }

    def put(name, ours, kind, shaped):
        if "{l}" not in name:
            out[f"{name}.{kind}"] = shaped(p[ours])
            return
        for layer, stacked in enumerate(p[ours]):
            out[f"{name.format(l=layer)}.{kind}"] = shaped(stacked)

    for name, ours, inputs in LINEARS:
        put(name, f"{ours}/w", "weight", lambda w, inputs=inputs: w.flatten(0, inputs - 1).flatten(1).T)
        if f"{ours}/b" in p:
            put(name, f"{ours}/b", "bias", torch.flatten)
    for name, ours in NORMS:
        put(name, f"{ours}/scale", "weight", torch.flatten)
        if f"{ours}/bias" in p:
            put(name, f"{ours}/bias", "bias", torch.flatten)
    return out


def their_inputs(medium: str, row: dict[str, np.ndarray], n: int, g: int) -> dict[str, torch.Tensor]:
    """A row of n tokens and g visual tokens as transformers' processor would give it, which leaves positions out."""
    tokens, groups = (torch.from_numpy(row[name][None, :n]).long() for name in ("tokens", "image_group"))
    pixels = torch.from_numpy(row["crops"].astype(np.float32) / 255 * 2 - 1)
    pooling = torch.from_numpy(row["pooling"][:g]).long()
    common = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "mm_token_type_ids": groups}
    if medium == "image":
        grids = torch.tensor(image.image_grid(cases.TILING)).reshape(1, 4)
        crops = torch.tensor([len(pixels)])
        media = {"image_token_pooling": pooling[:, :4], "image_grids": grids, "image_num_crops": crops}
        return common | {"pixel_values": pixels} | media
    grids = torch.tensor([[len(pixels), 9, 9]])
    return common | {"pixel_values_videos": pixels, "video_token_pooling": pooling, "video_grids": grids}


def outputs(kind: str, medium: str, numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is kept of one case."""
    c, (row, n, g) = cases.KINDS[kind], cases.row(medium)
    model = their_model(c)
    leaves = {name: torch.from_numpy(a).requires_grad_() for name, a in numbers.items()}
    features = []
    model.model.multi_modal_projector.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    state = dict(model.named_buffers()) | renamed(leaves, c)
    out = torch.func.functional_call(model, state, kwargs=their_inputs(medium, row, n, g), strict=True)

    logits = out.logits[0]
    w, target = torch.from_numpy(row["loss_weights"][:n]), torch.from_numpy(row["targets"][:n]).long()
    learned = w > 0  # elsewhere a target may be a token without a logit
    ce = cross_entropy(logits[learned], target[learned], reduction="none")
    loss = (w[learned] * (ce + cases.Z_LOSS * logits[learned].logsumexp(-1) ** 2)).sum() / w.sum()
    grads = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)

    named = {name: g.numpy() for name, g in zip(leaves, grads, strict=True)}
    (features_CPD,) = (f.detach().numpy().reshape(len(row["crops"]), 729, -1) for f in features)
    vision = cases.kept_vision(features_CPD, out.image_hidden_states.detach().numpy())
    return vision | cases.kept(kind, logits.detach().numpy(), loss.item(), named)


def main():
    with jax.set_mesh(sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])):
        shapes = {kind: parameters.structure(c).shapes for kind, c in cases.KINDS.items()}
    for medium in cases.MEDIA:
        kept = {}
        for kind in cases.KINDS:
            kept |= outputs(kind, medium, cases.weights(shapes[kind]))
        np.savez_compressed(cases.FOLDER / f"{medium}.npz", **kept)


if __name__ == "__main__":
    main()
