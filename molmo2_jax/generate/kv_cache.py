"""The static key-value cache of one layer: keys and values of all tokens so far, with room for the new ones.

Each row's cache holds its prompt, then its new tokens, so a token's index in the cache is its position:

    prompt 4 tokens, room for 3     cache  p0 p1 p2 p3 -- -- --
    first step writes at 4                 p0 p1 p2 p3 a0 -- --      a0 sees keys 0..4
"""

import jax
import jax.numpy as jnp

from molmo2_jax import sharding
from molmo2_jax.ops.attention import mask
from molmo2_jax.ops.attention.dense import dense_attention


def with_room(x_BSKH: jax.Array, max_new: int) -> jax.Array:
    """The prompts' keys or values with zeros for `max_new` more tokens: [B, S + max_new, K, H]."""
    return jnp.pad(x_BSKH, [(0, 0), (0, max_new), (0, 0), (0, 0)])


def append_and_attend(q_B1NH, k_B1KH, v_B1KH, keys_BSKH, values_BSKH, lengths_B):
    """Writes each row's new key and value at index `lengths_B` and attends to everything up to it.

    Returns:
      The attention's output [B, 1, N, H] and the new caches.
    """
    heads = sharding.B_S_N_H
    step = jax.shard_map(_append_and_attend, in_specs=(heads,) * 5 + (sharding.B,), out_specs=(heads,) * 3)
    return step(q_B1NH, k_B1KH, v_B1KH, keys_BSKH, values_BSKH, lengths_B)


def _append_and_attend(q_B1NH, k_B1KH, v_B1KH, keys_BSKH, values_BSKH, lengths_B):
    B, S = keys_BSKH.shape[:2]
    rows = jnp.arange(B)
    keys_BSKH = keys_BSKH.at[rows, lengths_B].set(k_B1KH[:, 0])
    values_BSKH = values_BSKH.at[rows, lengths_B].set(v_B1KH[:, 0])
    index_B1 = lengths_B[:, None]
    query = mask.Visibility(index_B1, index_B1 + 1, jnp.zeros_like(index_B1))
    # Later entries are not written yet; a key is visible only to queries with at least its index.
    key_index_BS = jnp.broadcast_to(jnp.arange(S), (B, S))
    written = mask.Visibility(key_index_BS, jnp.full((B, S), S), jnp.zeros((B, S), jnp.int32))
    return dense_attention(q_B1NH, keys_BSKH, values_BSKH, query, written), keys_BSKH, values_BSKH
