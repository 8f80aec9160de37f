"""Crossing `context` by a ring: keys, values and their three integers travel from device to device past the queries.

Device d holds queries d throughout and meets the keys of device d - i in step i. On four devices:

    step   device 0   1    2    3        a causal row: x is skipped, since no query sees any of the keys
    0             0   1    2    3
    1             3x  0    1    2
    2             2x  3x   0    1
    3             1x  2x   3x   0

The next keys are sent while a step attends to its own. Partial results are merged by their log_sum in float32 (Liu et
al., Ring Attention, arXiv 2310.01889). In the backward pass dk and dv travel along with their keys, a step behind them,
and one more send brings them home. Per device, inside `shard_map`; `kernel` as in ops/attention/attention.py. Between steps
arrays are [B, S, N*H]: kernels on TPUs have them so, and [B, S, N, H] lies otherwise in memory.
"""

import jax
import jax.numpy as jnp

from molmo2_jax.ops.attention import mask
from molmo2_jax.sharding import CONTEXT


def forward(kernel, q_BQNH, k_BSKH, v_BSKH, vis):
    """Own queries to the keys of the whole row: (out_BQNH, log_sum_BNQ)."""
    q_BQF, held = _flat(q_BQNH), (_flat(k_BSKH), _flat(v_BSKH), jnp.stack(vis))

    def part(k_BSF, v_BSF, k_vis_3BS):
        keys = k_BSF.reshape(k_BSKH.shape), v_BSF.reshape(v_BSKH.shape)
        out_BQNH, log_sum_BNQ = kernel.forward(q_BQF.reshape(q_BQNH.shape), *keys, vis, mask.Visibility(*k_vis_3BS))
        return _flat(out_BQNH), log_sum_BNQ

    def merge(held, so_far):
        return _merge(so_far, part(*held))

    coming = _send(held)
    out_BQF, log_sum_BNQ = part(*held)
    result = out_BQF.astype(jnp.float32), log_sum_BNQ
    for _ in range(jax.lax.axis_size(CONTEXT) - 1):
        held, result = _after(coming, result)
        coming = _send(held)
        result = jax.lax.cond(_any_visible(vis, held[2]), merge, lambda _, so_far: so_far, held, result)
    out_BQF, log_sum_BNQ = result
    return out_BQF.astype(q_BQNH.dtype).reshape(q_BQNH.shape), log_sum_BNQ


def backward(kernel, q_BQNH, k_BSKH, v_BSKH, vis, log_sum_BNQ, delta_BNQ, d_out_BQNH):
    """(dq, dk, dv) float32 of own queries and own keys."""
    q_BQF, d_out_BQF, held = _flat(q_BQNH), _flat(d_out_BQNH), (_flat(k_BSKH), _flat(v_BSKH), jnp.stack(vis))

    def part(k_BSF, v_BSF, k_vis_3BS):
        keys = k_BSF.reshape(k_BSKH.shape), v_BSF.reshape(v_BSKH.shape), vis, mask.Visibility(*k_vis_3BS)
        sums = log_sum_BNQ, delta_BNQ, d_out_BQF.reshape(q_BQNH.shape)
        return [_flat(x) for x in kernel.backward(q_BQF.reshape(q_BQNH.shape), *keys, *sums)]

    def add(held, dq):
        part_dq, dk, dv = part(*held)
        return dq + part_dq, dk, dv

    def skip(held, dq):
        return dq, *(jnp.zeros(x.shape, jnp.float32) for x in held[:2])

    coming = _send(held)
    dq, *d_keys = part(*held)
    for _ in range(jax.lax.axis_size(CONTEXT) - 1):
        held, (dq, *d_keys) = _after(coming, (dq, *d_keys))
        coming, d_keys = _send((held, d_keys))
        dq, *parts = jax.lax.cond(_any_visible(vis, held[2]), add, skip, held, dq)
        d_keys = jax.tree.map(jnp.add, d_keys, parts)
    dk, dv = _send(d_keys)
    return dq.reshape(q_BQNH.shape), dk.reshape(k_BSKH.shape), dv.reshape(v_BSKH.shape)


def _flat(x_BSNH: jax.Array) -> jax.Array:
    return x_BSNH.reshape(*x_BSNH.shape[:2], -1)


def _send(tree):
    """To the next device; what arrives is the previous one's. Few arrays: a TPU has five sends under way at a time."""
    steps = jax.lax.axis_size(CONTEXT)
    return jax.tree.map(lambda x: jax.lax.ppermute(x, CONTEXT, [(d, (d + 1) % steps) for d in range(steps)]), tree)


def _after(coming, result):
    """Holds the next send back until `result` is there; all would be sent at once otherwise, with nothing beside it."""
    return jax.lax.optimization_barrier((coming, result))


def _any_visible(q_vis: mask.Visibility, k_vis_3BS: jax.Array) -> jax.Array:
    """bool: does some query of this shard see some of these keys, in any row? From minima and maxima alone."""
    Q, S = q_vis.index.shape[1], k_vis_3BS.shape[2]
    return jnp.any(mask.tile_classes(q_vis, mask.Visibility(*k_vis_3BS), Q, S) != mask.EMPTY)


def _merge(so_far, part):
    """Two results over disjoint keys -> the result over both: (float32[B, Q, N*H], float32[B, N, Q])."""
    (out_a, log_a), (out_b, log_b) = so_far, part
    log_sum = jnp.logaddexp(log_a, log_b)  # of two that saw nothing: -1e30 again
    share_BNQ = jnp.exp(log_a - log_sum)
    # Each head's share for all its H numbers. A matmul with ones keeps the layout; jnp.repeat would not.
    N = share_BNQ.shape[1]
    ones_NF = jnp.repeat(jnp.eye(N, dtype=jnp.float32), out_a.shape[-1] // N, axis=1)
    share_BQF = jnp.einsum("BNQ,NF->BQF", share_BNQ, ones_NF, precision="high")
    out_b = out_b.astype(jnp.float32)
    return out_b + (out_a - out_b) * share_BQF, log_sum
