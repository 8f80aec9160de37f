"""Setup of every comparison with transformers: reproducible torch kernels, and a torchvision that can be imported."""

import importlib
import json
import os

# torch's plain kernels. Its AVX kernels fuse multiplication and addition, so that a resize rounds some values between
# two bytes differently: 129 of the 53 million bytes of 28 photographs are off by one.
os.environ["ATEN_CPU_CAPABILITY"] = "default"

import pytest
import torch

from molmo2_jax.weights.hf.processor import ProcessorSettings, write_processor
from tests.parity.photos import save_photos

importlib.import_module("tests.parity.vllm.sitecustomize")  # before any test imports transformers, hence torchvision

# torch's threads wait by spinning: on a few shared cores they cost ten times what they compute.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def processor_folder(tokenizer, tmp_path_factory):
    """A directory with our files: Qwen3's tokenizer, values as released; a config.json next to them."""
    folder = tmp_path_factory.mktemp("processor")
    write_processor(folder, tokenizer, ProcessorSettings(max_crops=8, max_frames=384, fps=2.0, frame_tokens="im"))
    (folder / "config.json").write_text(json.dumps({"model_type": "molmo2"}))
    return folder


@pytest.fixture(scope="session")
def processor(processor_folder):
    """transformers' processor, loaded from this directory."""
    from transformers import AutoProcessor

    return AutoProcessor.from_pretrained(processor_folder)


@pytest.fixture(scope="session")
def photos(street_video, tmp_path_factory):
    """{name: path} of photographs of every shape and kind."""
    return save_photos(street_video, tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def one_resize():
    """Makes torch use one of its several resizes: on one thread it adds the four pixels in another order, as with AVX.

    Then up to 7 of 10,000 bytes of a photograph are off by one; with these settings, not one of 25 million.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)
