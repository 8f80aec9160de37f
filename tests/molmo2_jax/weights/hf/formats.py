"""The Hugging Face formats in plain numpy, independent of tensor_rules.py: parameters -> tensors.

torch's linear maps have weights [outputs, inputs]; the outputs of a projection into heads are one head after another.
"""

import json

import numpy as np
import safetensors.numpy


def into_heads(w_DNH: np.ndarray) -> np.ndarray:
    """[N * H, D]"""
    return w_DNH.reshape(len(w_DNH), -1).T


def out_of_heads(w_NHD: np.ndarray) -> np.ndarray:
    """[D, N * H]"""
    return w_NHD.reshape(-1, w_NHD.shape[-1]).T


def layers(p: dict, prefix: str):
    """(index, {name without `prefix`: values}) of every layer."""
    stacked = {name.removeprefix(prefix): x for name, x in p.items() if name.startswith(prefix)}
    for l in range(len(next(iter(stacked.values())))):
        yield l, {name: x[l] for name, x in stacked.items()}


def linear(key: str, w: np.ndarray, b: np.ndarray) -> dict:
    return {f"{key}.weight": w, f"{key}.bias": b.reshape(-1)}


def norm(key: str, p: dict, name: str) -> dict:
    return {f"{key}.weight": p[f"{name}/scale"], f"{key}.bias": p[f"{name}/bias"]}


def head(p: dict) -> dict:
    return {"lm_head.weight": p["llm/head"] if "llm/head" in p else p["llm/embed/base"]}


def vit_block(p: dict, q: str, k: str, v: str, o: str, up: str, down: str) -> dict:
    out = {}
    for key, x in ((q, "q"), (k, "k"), (v, "v")):
        out |= linear(key, into_heads(p[f"attn/{x}/w"]), p[f"attn/{x}/b"])
    out |= linear(o, out_of_heads(p["attn/o/w"]), p["attn/o/b"])
    return out | linear(up, p["up/w"].T, p["up/b"]) | linear(down, p["down/w"].T, p["down/b"])


def released(p: dict) -> dict:
    """Molmo2 as released: fused projections, two tables."""
    text, vision = "model.transformer", "model.vision_backbone"
    tower, pooling, projector = f"{vision}.image_vit", f"{vision}.image_pooling_2d", f"{vision}.image_projector"
    out = head(p) | {
        f"{text}.wte.embedding": p["llm/embed/base"],
        f"{text}.wte.new_embedding": p["llm/embed/new"],
        f"{text}.ln_f.weight": p["llm/norm/scale"],
        f"{tower}.positional_embedding": p["vit/positions"],
        f"{projector}.w1.weight": p["connector/gate/w"].T,
        f"{projector}.w3.weight": p["connector/up/w"].T,
        f"{projector}.w2.weight": p["connector/down/w"].T,
    }
    out |= linear(f"{tower}.patch_embedding", p["vit/patch/w"].T, p["vit/patch/b"])
    for x in "qkv":
        out |= linear(f"{pooling}.w{x}", into_heads(p[f"connector/{x}/w"]), p[f"connector/{x}/b"])
    out |= linear(f"{pooling}.wo", out_of_heads(p["connector/o/w"]), p["connector/o/b"])
    for l, block in layers(p, "vit/blocks/"):
        here = f"{tower}.transformer.resblocks.{l}"
        attention, mlp = f"{here}.attention", f"{here}.feed_forward"
        out |= norm(f"{here}.attention_norm", block, "attn_norm") | norm(f"{here}.ffn_norm", block, "mlp_norm")
        out |= vit_block(block, *(f"{attention}.w{x}" for x in "qkvo"), f"{mlp}.w1", f"{mlp}.w2")
    for l, block in layers(p, "llm/blocks/"):
        here = f"{text}.blocks.{l}"
        out |= {
            f"{here}.attn_norm.weight": block["attn_norm/scale"],
            f"{here}.self_attn.att_proj.weight": np.concatenate([into_heads(block[f"attn/{x}/w"]) for x in "qkv"]),
            f"{here}.self_attn.q_norm.weight": block["attn/q_norm/scale"].reshape(-1),
            f"{here}.self_attn.k_norm.weight": block["attn/k_norm/scale"].reshape(-1),
            f"{here}.self_attn.attn_out.weight": out_of_heads(block["attn/o/w"]),
            f"{here}.ff_norm.weight": block["mlp_norm/scale"],
            f"{here}.mlp.ff_proj.weight": np.concatenate([block["mlp/up/w"].T, block["mlp/gate/w"].T]),
            f"{here}.mlp.ff_out.weight": block["mlp/down/w"].T,
        }
    return out


def decoder_block(here: str, p: dict, attn_norm: str, mlp_norm: str) -> dict:
    """One layer with the names of Llama and its successors, except for its norms."""
    out = {f"{here}.self_attn.{x}_proj.weight": into_heads(p[f"attn/{x}/w"]) for x in "qkv"}
    out |= {f"{here}.mlp.{x}_proj.weight": p[f"mlp/{x}/w"].T for x in ("gate", "up", "down")}
    out[f"{here}.self_attn.o_proj.weight"] = out_of_heads(p["attn/o/w"])
    out[f"{here}.{attn_norm}.weight"] = p["attn_norm/scale"]
    out[f"{here}.{mlp_norm}.weight"] = p["mlp_norm/scale"]
    if "attn/q_norm/scale" in p:
        out |= {f"{here}.self_attn.{x}_norm.weight": p[f"attn/{x}_norm/scale"].reshape(-1) for x in "qk"}
    return out


def transformers(p: dict) -> dict:
    """Molmo2 as transformers holds it in memory: separate projections, one table."""
    text, tower, projector = "model.language_model", "model.vision_tower", "model.multi_modal_projector"
    out = head(p) | {
        f"{text}.embed_tokens.weight": np.concatenate([p["llm/embed/base"], p["llm/embed/new"]]),
        f"{text}.norm.weight": p["llm/norm/scale"],
        f"{tower}.positional_embedding": p["vit/positions"],
        f"{projector}.image_projector.gate_proj.weight": p["connector/gate/w"].T,
        f"{projector}.image_projector.up_proj.weight": p["connector/up/w"].T,
        f"{projector}.image_projector.down_proj.weight": p["connector/down/w"].T,
    }
    out |= linear(f"{tower}.patch_embedding", p["vit/patch/w"].T, p["vit/patch/b"])
    for x in "qkv":
        key = f"{projector}.image_pooling_2d.{x}_proj"
        out |= linear(key, into_heads(p[f"connector/{x}/w"]), p[f"connector/{x}/b"])
    key = f"{projector}.image_pooling_2d.o_proj"
    out |= linear(key, out_of_heads(p["connector/o/w"]), p["connector/o/b"])
    for l, block in layers(p, "vit/blocks/"):
        here = f"{tower}.layers.{l}"
        out |= norm(f"{here}.layer_norm1", block, "attn_norm") | norm(f"{here}.layer_norm2", block, "mlp_norm")
        projections = (f"{here}.self_attn.{x}_proj" for x in "qkvo")
        out |= vit_block(block, *projections, f"{here}.mlp.fc1", f"{here}.mlp.fc2")
    for l, block in layers(p, "llm/blocks/"):
        out |= decoder_block(f"{text}.layers.{l}", block, "input_layernorm", "post_attention_layernorm")
    return out


def base_llm(p: dict, kind: str) -> dict:
    """Qwen3, Llama or OLMo3; a tied head is not written."""
    before, after = ("input_layernorm", "post_attention_layernorm")
    norms = (after, "post_feedforward_layernorm") if kind == "olmo3" else (before, after)
    out = {"model.embed_tokens.weight": p["llm/embed/base"], "model.norm.weight": p["llm/norm/scale"]}
    out |= head(p) if "llm/head" in p else {}
    for l, block in layers(p, "llm/blocks/"):
        out |= decoder_block(f"model.layers.{l}", block, *norms)
    return out


def siglip2(p: dict, prefix: str, convolution: bool) -> dict:
    """SigLIP2's tower; a convolution has a patch's pixels as (channel, row, column), else (row, column, channel)."""
    patch_XD = p["vit/patch/w"]
    patch = patch_XD.reshape(14, 14, 3, -1).transpose(3, 2, 0, 1) if convolution else patch_XD.T
    out = linear(f"{prefix}embeddings.patch_embedding", patch, p["vit/patch/b"])
    out[f"{prefix}embeddings.position_embedding.weight"] = p["vit/positions"]
    for l, block in layers(p, "vit/blocks/"):
        here = f"{prefix}encoder.layers.{l}"
        out |= norm(f"{here}.layer_norm1", block, "attn_norm") | norm(f"{here}.layer_norm2", block, "mlp_norm")
        projections = (f"{here}.self_attn.{x}_proj" for x in ("q", "k", "v", "out"))
        out |= vit_block(block, *projections, f"{here}.mlp.fc1", f"{here}.mlp.fc2")
    return out


MOLMO2 = {"released": released, "transformers": transformers}


def write(folder, config: dict, tensors: dict) -> None:
    """Writes a directory with this config and these tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {key: np.array(x, order="C") for key, x in tensors.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
