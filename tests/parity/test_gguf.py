"""Small GGUF files of every type of tensor, compared with what transformers reads from them."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from molmo2_jax.weights.hf import gguf
from tests.molmo2_jax.weights.hf import small_gguf as small


def read_by_transformers(path, model):
    """({key: tensor}, {key: value of config.json}) of a GGUF file. `model` determines the spelling of keys.

    `from_pretrained(gguf_file=…)` gives the same, but needs the package accelerate.
    """
    read = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)
    return read["tensors"], read["config"]


def assert_same_config(ours, theirs):
    """transformers gives the values of a GGUF file as doubles: 9.999999747378752e-06 is the float32 of 1e-05."""
    ours, theirs = ours.to_dict(), LlamaConfig(**theirs).to_dict()
    assert np.float32(ours.pop("rms_norm_eps")) == np.float32(theirs.pop("rms_norm_eps"))
    assert {key for key in ours if ours[key] != theirs[key]} <= {"architectures", "dtype", "_name_or_path"}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_values_are_those_that_transformers_reads(tmp_path, kind, tied):
    path = small.write(tmp_path / "small.gguf", tensors=small.tensors(tied), kind=kind)
    gguf.write_directory(path, tmp_path / "out", lambda n: None)
    model, info = LlamaForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    ours, (theirs, config) = model.state_dict(), read_by_transformers(path, model)
    assert set(ours) - set(theirs) == ({"lm_head.weight"} if tied else set())
    for key, values in theirs.items():
        assert values.dtype == torch.float32 and torch.equal(ours[key], values), key
    assert_same_config(model.config, config)
