"""The models that training starts from, as transformers makes them, loaded through our rules.

Qwen3, OLMo3 (within its sliding window, which Molmo2-O does not have), Llama, and SigLIP's vision tower.
"""

import dataclasses

import einops
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from data_pipelines.packing.schema import RowShape, empty_row
from molmo2_jax.models.config import TINY, LlmConfig, Molmo2Config, VitConfig
from molmo2_jax.models.structure import Params, Structure
from tests.molmo2_jax.weights.hf.small_hf import read_all, source, structure
from tests.parity import cases, ours, theirs

TOKENS = 200

QWEN3 = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 96,
    "vocab_size": 320,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
}
YARN = {"rope_type": "yarn", "rope_theta": 500_000.0, "factor": 8.0, "attention_factor": 1.2079441541679836}
YARN |= {"beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 512}
PLAIN = {"rope_type": "default", "rope_theta": 500_000.0}
OLMO3 = QWEN3 | {
    "tie_word_embeddings": False,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "sliding_window": 2 * TOKENS,
    "max_position_embeddings": 4096,
    "rope_parameters": {"full_attention": YARN, "sliding_attention": PLAIN},
}
SIGLIP = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "patch_size": 14,
}

QWEN3_OURS, OLMO3_OURS = (dataclasses.replace(cases.KINDS[k].llm, new_vocab=0) for k in ("qwen3_tied", "olmo3"))
LLMS = {
    "qwen3": (transformers.Qwen3Config, QWEN3, QWEN3_OURS),
    "qwen3_untied": (
        transformers.Qwen3Config,
        QWEN3 | {"tie_word_embeddings": False},
        dataclasses.replace(QWEN3_OURS, tied=False),
    ),
    "olmo3": (transformers.Olmo3Config, OLMO3, OLMO3_OURS),
    "llama": (transformers.LlamaConfig, QWEN3, dataclasses.replace(QWEN3_OURS, qk_norm="none")),
}
VITS = {  # SigLIP2's checkpoints for square crops are SigLIP models; the others take patches and a mask
    "siglip": (transformers.SiglipVisionModel, transformers.SiglipVisionConfig, SIGLIP | {"image_size": 378}),
    "siglip2": (transformers.Siglip2VisionModel, transformers.Siglip2VisionConfig, SIGLIP | {"num_patches": 729}),
}


def around(vit: VitConfig = TINY.vit, llm: LlmConfig = TINY.llm) -> Molmo2Config:
    """A whole model around what a base model is; its other parts are not run."""
    return Molmo2Config("around", vit, TINY.connector, llm)


def loaded(s: Structure, folder) -> Params:
    """A base model's parameters, and zeros for what it does not have."""
    return ours.put_on_mesh(s, {n: np.zeros(shape) for n, shape in s.shapes.items()} | read_all(source(folder)))


@pytest.mark.parametrize("base", LLMS)
def test_a_base_language_model_gives_the_logits_it_gives_in_transformers(base, tmp_path):
    config_class, values, expected = LLMS[base]
    config = config_class(**values, attn_implementation="eager")
    model = theirs.redrawn(transformers.AutoModelForCausalLM.from_config(config))
    model.save_pretrained(tmp_path)
    assert source(tmp_path).model.llm == expected

    row = empty_row(RowShape(TOKENS, 0, 0))
    row["tokens"] = np.random.default_rng(0).integers(0, 320, TOKENS, np.int32)
    row |= {"positions": np.arange(TOKENS, dtype=np.int32), "visible_until": np.full(TOKENS, TOKENS, np.int32)}
    s = structure(around(llm=dataclasses.replace(expected, new_vocab=cases.KINDS["olmo3"].llm.new_vocab)))
    got = ours.run(ours.scores, s, loaded(s, tmp_path), {name: x[None] for name, x in row.items()})
    with torch.no_grad():
        want = model(torch.from_numpy(row["tokens"][None]).long()).logits.numpy()
    assert 0.5 < want.std() < 2
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def features(s: Structure, params: Params, row):
    return s.model(params).vit(row["crops"], jnp.float32, remat="none", attention="dense")


@pytest.mark.parametrize("base", VITS)
def test_a_base_vision_model_gives_the_hidden_states_of_two_layers(base, tmp_path):
    model_class, config_class, values = VITS[base]
    model = theirs.redrawn(model_class(config_class(**values, attn_implementation="eager")))
    model.save_pretrained(tmp_path)
    expected = dataclasses.replace(cases.KINDS["olmo3"].vit, layers=4, feature_layers=())
    assert source(tmp_path).model.vit == expected

    row = cases.case("image", True).row
    crops = row["crops"][:3]
    s = structure(around(vit=dataclasses.replace(expected, feature_layers=(2, 0))))
    got = ours.run(features, s, loaded(s, tmp_path), {"crops": crops[None]})
    pixels = torch.from_numpy(crops.astype(np.float32) / 255 * 2 - 1)
    if base == "siglip":
        sizes = {"py": 27, "y": 14, "c": 3}
        given = {"pixel_values": einops.rearrange(pixels, "n (py px) (y x c) -> n c (py y) (px x)", **sizes)}
    else:
        mask, shapes = torch.ones(3, 729), torch.tensor([[27, 27]] * 3)
        given = {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": shapes}
    with torch.no_grad():
        hidden = model(**given, output_hidden_states=True).hidden_states
    want = torch.cat([hidden[3], hidden[1]], -1).numpy()  # the first hidden states are the embeddings
    np.testing.assert_allclose(got[0], want, rtol=0, atol=2e-5 * np.abs(want).max())
