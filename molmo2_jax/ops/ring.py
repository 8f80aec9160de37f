"""Crossing `context` by a ring: keys, values and their three integers travel from device to device past the queries.

Device d holds queries d throughout and meets the keys of device d - i in step i. On four devices:

    step   device 0   1    2    3        a causal row: x is skipped, since no query sees any of the keys
    0             0   1    2    3
    1             3x  0    1    2
    2             2x  3x   0    1
    3             1x  2x   3x   0

The next keys are sent for before a step's own work and needed after it, so that sending and attention overlap. Partial
results are merged by their log_sum in float32 (Liu et al., Ring Attention, arXiv 2310.01889). In the backward pass dk
and dv travel along with their keys, a step behind them, and one more send brings them home. First and last step are
written out, the others are one loop. Per device, inside `shard_map`; `kernel` as in ops/attention.py.
"""

import jax
import jax.numpy as jnp

from molmo2_jax.ops import mask
from molmo2_jax.sharding import CONTEXT


def forward(kernel, q_BQNH, k_BSKH, v_BSKH, vis):
    """Own queries to the keys of the whole row: (out_BQNH, log_sum_BNQ)."""
    steps = jax.lax.axis_size(CONTEXT)

    def attend(held, result):
        def run():
            return _merge(result, kernel.forward(q_BQNH, *held[:2], vis, held[2]))

        return jax.lax.cond(_any_visible(vis, held[2]), run, lambda: result)

    def step(carry, _):
        held, result = carry
        return (_send(held), attend(held, result)), None

    own = (k_BSKH, v_BSKH, vis)
    coming = _send(own) if steps > 1 else None
    out, log_sum = kernel.forward(q_BQNH, k_BSKH, v_BSKH, vis, vis)
    result = (out.astype(jnp.float32), log_sum)
    if steps > 1:
        (held, result), _ = jax.lax.scan(step, (coming, result), length=steps - 2)
        result = attend(held, result)
    return result[0].astype(q_BQNH.dtype), result[1]


def backward(kernel, q_BQNH, k_BSKH, v_BSKH, vis, log_sum_BNQ, delta_BNQ, d_out_BQNH):
    """(dq, dk, dv) float32 of own queries and own keys."""
    steps = jax.lax.axis_size(CONTEXT)

    def pull(held, grads):
        def run():
            part = kernel.backward(q_BQNH, *held[:2], vis, held[2], log_sum_BNQ, delta_BNQ, d_out_BQNH)
            return jax.tree.map(jnp.add, grads, part)

        return jax.lax.cond(_any_visible(vis, held[2]), run, lambda: grads)

    def step(carry, _):
        held, (dq, *d_keys) = carry
        return (_send(held), pull(held, (dq, *_send(d_keys)))), None

    own = (k_BSKH, v_BSKH, vis)
    coming = _send(own) if steps > 1 else None
    grads = kernel.backward(q_BQNH, k_BSKH, v_BSKH, vis, vis, log_sum_BNQ, delta_BNQ, d_out_BQNH)
    if steps > 1:
        (held, grads), _ = jax.lax.scan(step, (coming, grads), length=steps - 2)
        dq, *d_keys = pull(held, (grads[0], *_send(grads[1:])))
        grads = (dq, *_send(d_keys))
    return grads


def _send(tree):
    """To the next device; what arrives is the previous one's."""
    steps = jax.lax.axis_size(CONTEXT)
    return jax.tree.map(lambda x: jax.lax.ppermute(x, CONTEXT, [(d, (d + 1) % steps) for d in range(steps)]), tree)


def _any_visible(q_vis: mask.Visibility, k_vis: mask.Visibility) -> jax.Array:
    """bool: does some query of this shard see some of these keys, in any row? From minima and maxima alone."""
    return jnp.any(mask.tile_classes(q_vis, k_vis, q_vis.index.shape[1], k_vis.index.shape[1]) != mask.EMPTY)


def _merge(result, part):
    """Two results over disjoint keys -> the result over both. out float32[B, Q, N, H], log_sum float32[B, N, Q]."""
    (out_a, log_a), (out_b, log_b) = result, part
    log_sum = jnp.logaddexp(log_a, log_b)  # of two queries that saw nothing: -1e30 again

    def share(log_BNQ):
        return jnp.exp(log_BNQ - log_sum).swapaxes(1, 2)[..., None]

    return out_a * share(log_a) + out_b.astype(jnp.float32) * share(log_b), log_sum
