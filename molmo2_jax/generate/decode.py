"""Generation: prefill with the bidirectional mask, then one token at a time from the key-value cache (kv_cache.py).

Prefill and every step are the model's own forward pass with another `attend`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from molmo2_jax import sharding
from molmo2_jax.generate import kv_cache
from molmo2_jax.generate.sampling import sample
from molmo2_jax.models.molmo2 import Molmo2, Row, logits
from molmo2_jax.models.run_config import RunConfig
from molmo2_jax.ops.attention import mask
from molmo2_jax.ops.attention.attention import attention


class Decoding(NamedTuple):
    """State of a batch during generation."""

    keys_LBSKH: jax.Array
    values_LBSKH: jax.Array
    lengths_B: jax.Array  # int32: prompt and generated tokens so far
    next_B: jax.Array  # int32: the last chosen token, not yet in the cache
    done_B: jax.Array  # bool: next_B is EOS, or came after it
    out_BT: jax.Array  # int32: generated tokens
    count: jax.Array  # int32: how many columns of out_BT are filled
    rng: jax.Array


@functools.partial(jax.jit, static_argnames=("run", "max_new", "temperature", "top_p"))
def prefill(
    model: Molmo2, row: Row, lengths_B, rng, *, run: RunConfig, max_new: int, temperature: float, top_p: float, eos: int
) -> Decoding:
    """Runs the prompts through the model and chooses the first token.

    Args:
      row: arrays of packing/schema.py; each row starts with one prompt, and S is at least the longest prompt.
      lengths_B: int32, tokens of each prompt.
      max_new: room for this many new tokens. They may extend past S: RoPE has no last position.

    Raises:
      ValueError: max_new < 1, a mesh that shards the sequence, or values that `sample` rejects.
    """
    if max_new < 1:
        raise ValueError(f"max_new is at least 1, not {max_new}")
    sharding.check_divides({"one new token": (1, sharding.CONTEXT)}, jax.sharding.get_abstract_mesh())
    vis = mask.row_visibility(row["visible_until"], row["image_group"])

    def attend(q, k, v, state):
        out = attention(q, k, v, vis, implementation=run.attention, context=run.context)
        return out, (kv_cache.with_room(k, max_new), kv_cache.with_room(v, max_new))

    x_BSD = model.embed(row, run)
    hidden_BSD, (keys, values) = model.llm(x_BSD, row["positions"], attend, remat="none")
    last_BS1 = (vis.index == lengths_B[:, None] - 1)[..., None]
    last_B1D = jnp.where(last_BS1, hidden_BSD, 0).sum(1, keepdims=True)
    token_B, rng = _choose_token(model, last_B1D, rng, temperature, top_p)
    out_BT = jnp.where(jnp.arange(max_new) == 0, token_B[:, None], eos)
    return Decoding(keys, values, lengths_B, token_B, token_B == eos, out_BT, jnp.ones((), jnp.int32), rng)


@functools.partial(jax.jit, static_argnames=("run", "temperature", "top_p"), donate_argnames=("state",))
def decode(
    model: Molmo2, state: Decoding, steps, *, run: RunConfig, temperature: float, top_p: float, eos: int
) -> Decoding:
    """Generates up to `steps` more tokens in one loop; ends early when every row is done or the room is used up."""
    last = jnp.minimum(state.count + steps, state.out_BT.shape[1])

    def unfinished(s: Decoding):
        return (s.count < last) & ~jnp.all(s.done_B)

    def step(s: Decoding) -> Decoding:
        hidden_B1D, keys, values = _forward_next(model, s, run)
        token_B, rng = _choose_token(model, hidden_B1D, s.rng, temperature, top_p)
        token_B = jnp.where(s.done_B, eos, token_B)
        out_BT = jnp.where(jnp.arange(s.out_BT.shape[1]) == s.count, token_B[:, None], s.out_BT)
        done_B = s.done_B | (token_B == eos)
        return Decoding(keys, values, s.lengths_B + 1, token_B, done_B, out_BT, s.count + 1, rng)

    return jax.lax.while_loop(unfinished, step, state)


def _forward_next(model: Molmo2, s: Decoding, run: RunConfig):
    """Hidden state of the last chosen token, and the caches including it."""

    def attend(q, k, v, cache):
        out, keys, values = kv_cache.append_and_attend(q, k, v, *cache, s.lengths_B)
        return out, (keys, values)

    x_B1D = model.llm.embed(s.next_B[:, None], jnp.dtype(run.dtype))
    states = (s.keys_LBSKH, s.values_LBSKH)
    hidden_B1D, (keys, values) = model.llm(x_B1D, s.lengths_B[:, None], attend, states=states, remat="none")
    return hidden_B1D, keys, values


def _choose_token(model: Molmo2, hidden_B1D, rng, temperature: float, top_p: float):
    rng, key = jax.random.split(rng)
    logits_BV = jax.sharding.reshard(logits(model, hidden_B1D)[:, 0], jax.P(sharding.ROWS, None))
    return sample(logits_BV, key, temperature, top_p), rng
