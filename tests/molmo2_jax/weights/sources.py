"""Parameters in memory as a ParameterSource: what the tests of loading, converting and storing share."""

import json
import pathlib

import jax
import numpy as np

from molmo2_jax.models.structure import Structure
from molmo2_jax.weights.hf.config import write_config
from molmo2_jax.weights.hf.source import tensors_of
from molmo2_jax.weights.hf.tensor_files import write_tensors


class InMemory:
    """A dict of parameters as a source."""

    def __init__(self, arrays: dict[str, np.ndarray], where: str = "memory"):
        self.where, self.values = where, arrays
        self.arrays = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}

    def read(self, name: str, layer: int | None) -> np.ndarray:
        return self.values[name] if layer is None else self.values[name][layer]


def write_hf(folder: pathlib.Path, s: Structure, arrays: dict[str, np.ndarray], layout: str = "released") -> None:
    """A Molmo2 as a Hugging Face directory: config.json and tensors, without a processor."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(write_config(s.config, 4096, "float32")))
    write_tensors(folder, *tensors_of(InMemory(arrays), s, layout, None), lambda n: None)
