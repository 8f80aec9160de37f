"""transformers' side of the parity suite: its models loaded from our exports, its inputs made from our rows.

Everything is float32 with eager attention. The two sides are comparable because:
  * a row is one example, its turns in a chain: transformers has neither packing nor branches;
  * `mm_token_type_ids` is 1 at every token of an image or a frame (also its start, end and column tokens), and all of
    these see each other in both directions, across images and frames: our image_groups = "example";
  * frames are wrapped in <im_start> ... <im_end>, as by the released processors;
  * the loss is ours, computed from transformers' logits: sum(w * CE) / sum(w) + 1e-4 * sum(w * logsumexp^2) / sum(w).
"""

import functools
import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import Molmo2Config, Molmo2ForConditionalGeneration, PreTrainedModel

from data_pipelines.media.crops import PATCHES
from data_pipelines.media.token_counts import token_grids
from molmo2_jax.models.structure import Structure
from molmo2_jax.weights.hf import tensor_rules
from tests.molmo2_jax.weights.hf.small_hf import structure
from tests.molmo2_jax.weights.sources import write_hf
from tests.parity import cases, ours


@functools.cache
def loaded(kind: str, layout: str = "released", change: Callable = dict) -> tuple[Molmo2ForConditionalGeneration, dict]:
    """(model, loading info) of an export of a kind's drawn weights, after a `change`."""
    s = structure(cases.KINDS[kind])
    with tempfile.TemporaryDirectory() as folder:
        write_hf(pathlib.Path(folder), s, change(cases.weights(s.shapes)), layout)
        model, info = Molmo2ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    return model.eval(), info


def made() -> Molmo2ForConditionalGeneration:
    """cases.KINDS["olmo3"] by transformers' own config, but with a ViT block after the last feature layer.

    Only transformers' own layout of files can express that.
    """
    yarn = {"rope_type": "yarn", "factor": 8.0, "attention_factor": 1.2079441541679836, "beta_fast": 32.0}
    yarn |= {"beta_slow": 1.0, "original_max_position_embeddings": 512, "rope_theta": 500_000.0}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 32}
    config = Molmo2Config(
        vision_config=heads | {"intermediate_size": 48, "num_hidden_layers": 4},
        adapter_config=heads | {"vision_feature_layer": [2, 0], "intermediate_size": 96, "text_hidden_size": 64},
        text_config={
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 24,
            "intermediate_size": 96,
            "vocab_size": 320,
            "max_position_embeddings": 4096,
            "qk_norm_type": "olmo",
            "norm_after": True,
            "rope_parameters": yarn,
            "rope_scaling_layers": [0, 2],
        },
        image_start_token_id=320,
        image_end_token_id=321,
        image_patch_id=322,
        low_res_image_start_token_id=324,
        frame_start_token_id=327,
        frame_end_token_id=328,
    )
    config._attn_implementation = "eager"
    return redrawn(Molmo2ForConditionalGeneration(config))


def redrawn(model: PreTrainedModel) -> PreTrainedModel:
    """A model that transformers created, with drawn weights in place of its small and constant ones."""
    state = model.state_dict()
    drawn = cases.weights({name: tuple(x.shape) for name, x in state.items()})
    model.load_state_dict({name: torch.from_numpy(x) for name, x in drawn.items()})
    model.tie_weights()
    return model.eval()


def inputs(media: Sequence[str], answered: bool = True) -> dict[str, torch.Tensor]:
    """Rows as transformers' processor gives them: text left-padded, the media of all rows concatenated."""
    rows = [cases.case(medium, answered) for medium in media]
    longest = max(case.tokens for case in rows)

    def padded(values_of: Callable[[cases.Case], np.ndarray]) -> torch.Tensor:
        values = [values_of(case)[: case.tokens] for case in rows]
        return torch.from_numpy(np.stack([np.pad(x, (longest - len(x), 0)) for x in values])).long()

    out = {
        "input_ids": padded(lambda case: case.row["tokens"]),
        "attention_mask": padded(lambda case: np.ones_like(case.row["tokens"])),
        "mm_token_type_ids": padded(lambda case: case.row["image_group"]),
    }
    if not any(case.crops for case in rows):
        return out
    pixels = np.concatenate([case.row["crops"][: case.crops] for case in rows])
    firsts = PATCHES * np.cumsum([0, *(case.crops for case in rows)])
    pooling = [case.row["pooling"][: case.pooled] for case in rows]
    pooling = np.concatenate([np.where(x < 0, x, x + first) for x, first in zip(pooling, firsts, strict=False)])
    pixels, pooling = torch.from_numpy(pixels.astype(np.float32) / 255 * 2 - 1), torch.from_numpy(pooling).long()
    if "video" in media:
        grids = torch.tensor([[len(cases.TIMES), 9, 9]] * len(media))
        return out | {"pixel_values_videos": pixels, "video_token_pooling": pooling, "video_grids": grids}
    crop_grids = [crop_grid for medium in media for crop_grid in cases.CROP_GRIDS[medium]]
    return out | {
        "pixel_values": pixels,
        "image_token_pooling": pooling[:, :4],
        "image_grids": torch.tensor([sum(token_grids(crop_grid), ()) for crop_grid in crop_grids]),
        "image_num_crops": torch.tensor([1 + rows * columns for rows, columns in crop_grids]),
    }


def forward(model: Molmo2ForConditionalGeneration, media: Sequence[str]) -> dict[str, torch.Tensor]:
    """Every sub-module's output by the names of ours.py: crops and visual tokens of all rows, tokens left-padded."""
    vision, decoder = model.model.multi_modal_projector, model.model.language_model
    out: dict[str, torch.Tensor] = {}

    def before(name, take):
        return lambda _, args, kwargs: out.update({name: take(*args, **kwargs)})

    def after(name):
        return lambda _, args, y: out.update({name: y})

    hooks = [
        vision.register_forward_pre_hook(before("features", lambda x, pooling: x), with_kwargs=True),
        vision.image_projector.register_forward_hook(after("visual")),
        decoder.register_forward_pre_hook(
            before("embedded", lambda inputs_embeds, **_: inputs_embeds), with_kwargs=True
        ),
        *(block.register_forward_hook(after(f"block {layer}")) for layer, block in enumerate(decoder.layers)),
        decoder.norm.register_forward_hook(after("norm")),
    ]
    given = inputs(media)
    positions = (given["attention_mask"].cumsum(-1) - 1).clamp(min=0)  # as `generate` counts them
    out["logits"] = model(**given, position_ids=positions).logits
    for hook in hooks:
        hook.remove()
    return out


@functools.cache
def outputs(kind: str, media: tuple[str, ...]) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: x.numpy() for name, x in forward(loaded(kind)[0], media).items()}


def gradients(kind: str, batches: Sequence[Sequence[str]]) -> tuple[float, dict[str, np.ndarray]]:
    """Loss over the rows of all batches, and its gradients by our names and in our shapes."""
    model = loaded(kind)[0]
    total = sum(cases.case(medium, True).row["loss_weights"].sum() for media in batches for medium in media)
    model.zero_grad()
    loss = 0.0
    for media in batches:
        logits = forward(model, media)["logits"]
        share = sum(_weighted_loss(logits[b], cases.case(medium, True)) for b, medium in enumerate(media)) / total
        share.backward()
        loss += share.item()
    s = structure(cases.KINDS[kind])
    return loss, _by_our_names(s, {name: p.grad.numpy() for name, p in model.named_parameters()})


def _weighted_loss(logits_SV: torch.Tensor, case: cases.Case) -> torch.Tensor:
    logits_SV = logits_SV[-case.tokens :]
    w, target = (torch.from_numpy(case.row[name][: case.tokens]) for name in ("loss_weights", "targets"))
    supervised = w > 0  # elsewhere a target may be a token without a logit
    ce = cross_entropy(logits_SV[supervised], target[supervised].long(), reduction="none")
    return (w[supervised] * (ce + ours.Z_LOSS * logits_SV[supervised].logsumexp(-1) ** 2)).sum()


def _by_our_names(s: Structure, theirs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients by our names, in our shapes. The two tables of a tied model in transformers are added up."""
    out = {name: np.zeros(shape, np.float32) for name, shape in s.shapes.items()}
    for tensor in tensor_rules.expand(
        tensor_rules.native(s.config.llm), s.shapes, lambda name: s.layers(name) is not None
    ):
        rest = theirs.pop(tensor.keys[0])
        for piece in tensor.pieces:
            rows, rest = np.split(rest, piece.rows_shape[:1])
            target = out[piece.name] if piece.layer is None else out[piece.name][piece.layer]
            target += piece.to_layer(rows)
    assert not theirs, sorted(theirs)
    return out
