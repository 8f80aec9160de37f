"""What every comparison with transformers needs: a torch that computes alike everywhere, a torchvision that imports."""

import json
import os

# torch's plain kernels. Those for AVX fuse multiplication and addition, so that a resize meets the middle between two
# bytes at other places than on a machine without them: 129 of the 53 million bytes of 28 photographs are off by one.
os.environ["ATEN_CPU_CAPABILITY"] = "default"

import pytest
import torch

from tests.parity.vllm import sitecustomize  # noqa: F401  before transformers, which imports torchvision

# isort: split
from transformers import AutoProcessor

from molmo2_jax.weights.hf.processor import ProcessorSettings, write_processor
from tests.parity.photos import save_photos

# Threads of torch wait for each other by spinning: beside other work on few cores they cost ten times what they do.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def processor_folder(tokenizer, tmp_path_factory):
    """A directory with our files: Qwen3's tokenizer, values as released; a config.json beside them."""
    folder = tmp_path_factory.mktemp("processor")
    write_processor(folder, tokenizer, ProcessorSettings(max_crops=8, max_frames=384, fps=2.0, frame_tokens="im"))
    (folder / "config.json").write_text(json.dumps({"model_type": "molmo2"}))
    return folder


@pytest.fixture(scope="session")
def processor(processor_folder):
    """transformers' processor, loaded from them."""
    return AutoProcessor.from_pretrained(processor_folder)


@pytest.fixture(scope="session")
def photos(street_video, tmp_path_factory):
    """{name: path} of photographs of every shape and kind."""
    return save_photos(street_video, tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def one_resize():
    """torch has several: on one thread it adds the four pixels up in another order, as with AVX (see above).

    Then up to 7 of 10,000 bytes of a photograph are one less or more; with these settings not one in 25 million.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)
