"""Parameters in memory as a ParameterSource: what the tests of loading, converting and storing share."""

import jax
import numpy as np

from molmo2_jax.models.params import Structure


class InMemory:
    """The numbers of a dict as a source."""

    def __init__(self, arrays: dict[str, np.ndarray], where: str = "memory"):
        self.where, self.numbers = where, arrays
        self.arrays = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}

    def read(self, name: str, layer: int | None) -> np.ndarray:
        return self.numbers[name] if layer is None else self.numbers[name][layer]


def write_hf(folder, s: Structure, arrays: dict[str, np.ndarray], layout: str = "released") -> None:
    """A Molmo2 as a Hugging Face directory: config.json and tensors, without a processor."""
    import json

    from molmo2_jax.hf.config import write_config
    from molmo2_jax.hf.files import write_tensors
    from molmo2_jax.hf.source import tensors_of

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(write_config(s.config, 4096, "float32")))
    write_tensors(folder, *tensors_of(InMemory(arrays), s, layout, None), lambda n: None)
