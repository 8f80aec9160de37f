"""Context strategy "ulysses": each device sends away most heads of its tokens and gets a few heads of all tokens.

On two devices with tokens 0 1 | 2 3 and heads a, b:

    before   device 0: a0 a1 b0 b1    device 1: a2 a3 b2 b3
    after    device 0: a0 a1 a2 a3    device 1: b0 b1 b2 b3

Heads stay whole, so `context` has to divide the kv heads of a device (Jacobs et al., DeepSpeed-Ulysses, arXiv
2309.14509).
"""

import jax

from molmo2_jax.ops.attention.all_gather import gather
from molmo2_jax.ops.attention.interfaces import Kernel
from molmo2_jax.ops.attention.mask import Visibility
from molmo2_jax.sharding import CONTEXT


def forward(
    kernel: Kernel, q_BQNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, vis: Visibility
) -> tuple[jax.Array, jax.Array]:
    """out_BQNH of this device's queries, and the lse of all queries for the heads it computes."""
    q, k, v = (_to_heads(x, 2, 1) for x in (q_BQNH, k_BSKH, v_BSKH))
    vis = gather(vis)
    out, lse = kernel.forward(q, k, v, vis, vis)
    return _to_tokens(out), lse


def backward(
    kernel: Kernel,
    q_BQNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    vis: Visibility,
    lse: jax.Array,
    delta_BNQ: jax.Array,
    d_out_BQNH: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(dq, dk, dv) in the dtypes of q, k, v: nothing is summed after the exchange."""
    q, k, v, d_out = (_to_heads(x, 2, 1) for x in (q_BQNH, k_BSKH, v_BSKH, d_out_BQNH))
    vis = gather(vis)
    grads = kernel.backward(q, k, v, vis, vis, lse, _to_heads(delta_BNQ, 1, 2), d_out)
    return tuple(_to_tokens(g.astype(x.dtype)) for g, x in zip(grads, (q, k, v), strict=True))


def _to_heads(x: jax.Array, heads: int, tokens: int) -> jax.Array:
    """All heads of this device's tokens -> its heads of all tokens; `heads` and `tokens` are axes."""
    return jax.lax.all_to_all(x, CONTEXT, split_axis=heads, concat_axis=tokens, tiled=True)


def _to_tokens(x_BSNH: jax.Array) -> jax.Array:
    """The inverse of `_to_heads`."""
    return jax.lax.all_to_all(x_BSNH, CONTEXT, split_axis=1, concat_axis=2, tiled=True)
