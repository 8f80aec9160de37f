"""Answering prompts with a loaded model: from text and media to text."""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from data_pipelines.packing.row import build_row
from data_pipelines.packing.schema import RowShape
from data_pipelines.sequence.example import Example
from molmo2_jax import sharding
from molmo2_jax.generate.decode import decode, prefill
from molmo2_jax.generate.load import LoadedModel
from molmo2_jax.generate.text_stream import TextStream

_STREAM_TOKENS = 8  # tokens generated between two pieces of a streamed answer
_LENGTH_MULTIPLE = 256  # a prompt's row is padded to a multiple of this many tokens


def answer(
    loaded: LoadedModel,
    prompt: Example,
    *,
    max_new: int,
    temperature: float,
    top_p: float,
    seed: int,
    on_text: Callable[[str], None] | None = None,
) -> str:
    """The answer to a prompt (sequence/example.py: describe_prompt), without its EOS.

    Args:
      max_new: the answer ends after this many tokens if no EOS was generated.
      temperature, top_p: see generate/sampling.py.
      on_text: called with each piece of text as it is generated; joined, the pieces are the answer.

    Raises:
      MediaError: the prompt's media cannot be decoded.
    """
    chunk = max_new if on_text is None else _STREAM_TOKENS
    text = ""
    for piece in stream(loaded, prompt, max_new=max_new, temperature=temperature, top_p=top_p, seed=seed, chunk=chunk):
        text += piece
        if on_text is not None:
            on_text(piece)
    return text


def stream(
    loaded: LoadedModel,
    prompt: Example,
    *,
    max_new: int,
    temperature: float,
    top_p: float,
    seed: int,
    chunk: int = _STREAM_TOKENS,
) -> Iterator[str]:
    """The pieces of an answer as they are generated, `chunk` tokens at a time. Arguments and errors: see `answer`."""
    tok = loaded.tok
    arrays, failures = build_row([prompt], _row_shape(prompt), tok, length_weight=1.0)  # a prompt has no loss
    if failures:
        raise failures[0]
    sampling = {"temperature": temperature, "top_p": top_p, "eos": tok.eos_id, "run": loaded.run}
    text_stream, sent = TextStream(tok), 0
    with jax.set_mesh(loaded.mesh):
        row = sharding.put_rows({name: a[None] for name, a in arrays.items()}, loaded.mesh)
        lengths = jax.device_put(np.int32([prompt.n_tokens]), jax.NamedSharding(loaded.mesh, sharding.B))
        state = prefill(loaded.model, row, lengths, jax.random.key(seed), max_new=max_new, **sampling)
    while True:
        count, (done,), (tokens,) = jax.device_get((state.count, state.done_B, state.out_BT))
        ended = bool(done) or count >= max_new
        piece = text_stream.add([t for t in tokens[sent:count].tolist() if t != tok.eos_id], last=ended)
        sent = count
        if piece:
            yield piece
        if ended:
            return
        with jax.set_mesh(loaded.mesh):  # not held across a yield: the caller may set another mesh
            state = decode(loaded.model, state, chunk, **sampling)


def _row_shape(prompt: Example) -> RowShape:
    """A row for one prompt, padded so that prompts of similar lengths share a compiled program."""
    return RowShape(-(-prompt.n_tokens // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, prompt.n_crops, prompt.n_pooled)
