"""Crossing `context` by exchanging: each device gives away most heads of its tokens for a few heads of all tokens.

On two devices with tokens 0 1 | 2 3 and heads a, b:

    before   device 0: a0 a1 b0 b1    device 1: a2 a3 b2 b3
    after    device 0: a0 a1 a2 a3    device 1: b0 b1 b2 b3

Heads are whole there, so the degree has to divide the kv heads of a device (Jacobs et al., DeepSpeed-Ulysses, arXiv
2309.14509). Per device, inside `shard_map`; `kernel` as in ops/attention/attention.py.
"""

import jax

from molmo2_jax.ops.attention.all_gather import gather
from molmo2_jax.sharding import CONTEXT


def forward(kernel, q_BQNH, k_BSKH, v_BSKH, vis):
    """Own queries to the keys of the whole row: out_BQNH, and the log_sum of all queries for this device's heads."""
    q, k, v = (_to_heads(x, 2, 1) for x in (q_BQNH, k_BSKH, v_BSKH))
    vis = gather(vis)
    out, log_sum = kernel.forward(q, k, v, vis, vis)
    return _to_tokens(out), log_sum


def backward(kernel, q_BQNH, k_BSKH, v_BSKH, vis, log_sum, delta_BNQ, d_out_BQNH):
    """(dq, dk, dv) of own queries and own keys, in the dtypes of q, k, v: nothing is summed after the exchange."""
    q, k, v, d_out = (_to_heads(x, 2, 1) for x in (q_BQNH, k_BSKH, v_BSKH, d_out_BQNH))
    vis = gather(vis)
    grads = kernel.backward(q, k, v, vis, vis, log_sum, _to_heads(delta_BNQ, 1, 2), d_out)
    return tuple(_to_tokens(g.astype(x.dtype)) for g, x in zip(grads, (q, k, v), strict=True))


def _to_heads(x: jax.Array, heads: int, tokens: int) -> jax.Array:
    """All heads of own tokens -> own heads of all tokens; `heads` and `tokens` are axes."""
    return jax.lax.all_to_all(x, CONTEXT, split_axis=heads, concat_axis=tokens, tiled=True)


def _to_tokens(x_BSNH: jax.Array) -> jax.Array:
    """The way back."""
    return jax.lax.all_to_all(x_BSNH, CONTEXT, split_axis=1, concat_axis=2, tiled=True)
