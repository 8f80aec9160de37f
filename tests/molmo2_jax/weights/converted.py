"""Small checkpoints in both formats, with a tokenizer of single bytes: what the tests of conversions share."""

import pathlib

import numpy as np

from data_pipelines.text.tokenizer import Tokenizer
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.weights.checkpoint_files import save_architecture
from molmo2_jax.weights.hf.config import write_config
from molmo2_jax.weights.hf.processor import ProcessorSettings, write_processor
from molmo2_jax.weights.orbax_files import ParamFiles, write_params
from tests.data_pipelines.text.test_tokenizer import small_base
from tests.molmo2_jax.models.small import random_weights
from tests.molmo2_jax.weights.hf import formats
from tests.molmo2_jax.weights.hf.small_hf import read_all, structure
from tests.molmo2_jax.weights.sources import InMemory

SETTINGS = ProcessorSettings(max_crops=5, max_frames=64, fps=2.0, frame_tokens="frame")


def parameters(c: Molmo2Config, dtype=np.float32) -> dict[str, np.ndarray]:
    return {name: x.astype(dtype) for name, x in random_weights(structure(c).shapes).items()}


def tokenizer(folder: pathlib.Path, rows: int) -> str:
    """A directory with a tokenizer of 260 tokens for a table of `rows`."""
    folder.mkdir(parents=True, exist_ok=True)
    small_base().save(str(folder / "tokenizer.json"))
    Tokenizer.load(str(folder), rows)
    return str(folder)


def write_hf(folder: pathlib.Path, c: Molmo2Config, p: dict[str, np.ndarray], layout: str = "released") -> pathlib.Path:
    """A directory that another program could have written: tensors by formats.py, and a processor."""
    formats.write(folder, write_config(c, 4096, "float32"), formats.MOLMO2[layout](p))
    tok = Tokenizer.load(tokenizer(folder.with_name(f"{folder.name}-tokenizer"), c.llm.vocab), c.llm.vocab)
    write_processor(folder, tok, SETTINGS)
    return folder


def write_orbax(folder: pathlib.Path, c: Molmo2Config, p: dict[str, np.ndarray]) -> pathlib.Path:
    """A checkpoint without a processor and without a training config."""
    folder.mkdir(parents=True)
    write_params(InMemory(p), structure(c), folder / "params", lambda n: None)
    save_architecture(folder, c)
    return folder


def read_orbax(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return read_all(ParamFiles(folder / "params"))
