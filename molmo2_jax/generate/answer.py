"""Answering prompts with a trained checkpoint: from text and media to text."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.data.example import Example
from molmo2_jax.data.loader import row_shape
from molmo2_jax.data.media_error import MediaError
from molmo2_jax.data.row import build_row
from molmo2_jax.generate.decode import decode, prefill
from molmo2_jax.models import config as models
from molmo2_jax.models import params as parameters
from molmo2_jax.text.tokenizer import Tokenizer
from molmo2_jax.train import checkpoint
from molmo2_jax.train.config import read

_STREAM = 8  # tokens generated between two looks at them
_HALF = "\N{REPLACEMENT CHARACTER}"  # what the tokenizer shows for a character whose last bytes are still to come


class Answerer:
    """A checkpoint and how to talk to it. The mesh has this process' devices along `tensor`."""

    def __init__(self, directory: str | pathlib.Path):
        """`directory`: a workdir, or one step of it. Raises FileNotFoundError, or ValueError for a config that is
        not one.
        """
        step, tree = checkpoint.load_config(directory)
        self.config = read(tree)
        self.tok = Tokenizer.load(self.config.data.tokenizer, self.config.data.vocab_size)
        architecture = models.preset(self.config.model.preset)
        self.mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "context": 1, "tensor": jax.device_count()})
        sharding.check_divides({"llm kv_heads": (architecture.llm.kv_heads, "tensor")}, self.mesh)
        with jax.set_mesh(self.mesh):
            structure = parameters.structure(architecture)
            self._model = structure.model(checkpoint.load_params(step, structure, self.mesh))

    def answer(
        self,
        prompt: Example,
        *,
        max_new: int,
        temperature: float,
        top_p: float,
        seed: int,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        """The answer to a prompt of `example.describe_prompt`, without its EOS.

        Args:
          max_new: the answer ends after this many tokens if no EOS came.
          on_text: called with each new piece of text as it comes.

        Raises:
          MediaError: the prompt's media cannot be decoded.
        """
        arrays, failures = build_row([prompt], row_shape(self.config.data))
        if failures:
            raise MediaError(failures[0])
        sampling = {"temperature": temperature, "top_p": top_p, "eos": self.tok.eos_id, "run": self.config.model}
        with jax.set_mesh(self.mesh):
            row = sharding.put_rows({name: a[None] for name, a in arrays.items()}, self.mesh)
            lengths = jax.device_put(np.int32([prompt.n_tokens]), jax.NamedSharding(self.mesh, sharding.B))
            state = prefill(self._model, row, lengths, jax.random.key(seed), max_new=max_new, **sampling)
            shown = ""
            while True:
                count, done, tokens = jax.device_get((state.count, state.done_B[0], state.out_BT[0]))
                text = self._text(tokens[:count])
                if on_text is not None and not text.endswith(_HALF):
                    on_text(text[len(shown) :])
                    shown = text
                if done or count >= max_new:
                    return text
                state = decode(self._model, state, _STREAM if on_text else max_new, **sampling)

    def _text(self, tokens: np.ndarray) -> str:
        ends = np.flatnonzero(tokens == self.tok.eos_id)
        return self.tok.decode(tokens[: ends[0]] if len(ends) else tokens)
