"""Context strategy "ring": keys, values and their three integers travel from device to device, queries stay.

Device d keeps queries d and gets the keys of device d - i in step i. On four devices:

    step   device 0   1    2    3        a causal row: x is skipped, since no query sees any of the keys
    0             0   1    2    3
    1             3x  0    1    2
    2             2x  3x   0    1
    3             1x  2x   3x   0

The next keys are sent while a step attends to the current ones. Partial results are merged by their lse in float32 (Liu
et al., Ring Attention, arXiv 2310.01889). In the backward pass dk and dv travel with their keys, one step behind, and
one more send returns them to their device. Between steps arrays are [B, S, N*H]: TPU kernels use this shape, and
[B, S, N, H] has another memory layout.
"""

import jax
import jax.numpy as jnp

from molmo2_jax.ops.attention import mask
from molmo2_jax.ops.attention.interfaces import Kernel
from molmo2_jax.sharding import CONTEXT


def forward(
    kernel: Kernel, q_BQNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, vis: mask.Visibility
) -> tuple[jax.Array, jax.Array]:
    """(out_BQNH, lse_BNQ) of this device's queries."""
    q_BQF, held = _flat(q_BQNH), (_flat(k_BSKH), _flat(v_BSKH), jnp.stack(vis))

    def part(k_BSF, v_BSF, k_vis_3BS):
        keys = k_BSF.reshape(k_BSKH.shape), v_BSF.reshape(v_BSKH.shape)
        out_BQNH, lse_BNQ = kernel.forward(q_BQF.reshape(q_BQNH.shape), *keys, vis, mask.Visibility(*k_vis_3BS))
        return _flat(out_BQNH), lse_BNQ

    def merge(held, so_far):
        return _merge(so_far, part(*held))

    incoming = _send(held)
    out_BQF, lse_BNQ = part(*held)
    result = out_BQF.astype(jnp.float32), lse_BNQ
    for _ in range(jax.lax.axis_size(CONTEXT) - 1):
        held, result = _delay_until(incoming, result)
        incoming = _send(held)
        result = jax.lax.cond(_any_visible(vis, held[2]), merge, lambda _, so_far: so_far, held, result)
    out_BQF, lse_BNQ = result
    return out_BQF.astype(q_BQNH.dtype).reshape(q_BQNH.shape), lse_BNQ


def backward(
    kernel: Kernel,
    q_BQNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    vis: mask.Visibility,
    lse_BNQ: jax.Array,
    delta_BNQ: jax.Array,
    d_out_BQNH: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(dq, dk, dv), float32."""
    q_BQF, d_out_BQF, held = _flat(q_BQNH), _flat(d_out_BQNH), (_flat(k_BSKH), _flat(v_BSKH), jnp.stack(vis))

    def part(k_BSF, v_BSF, k_vis_3BS):
        keys = k_BSF.reshape(k_BSKH.shape), v_BSF.reshape(v_BSKH.shape), vis, mask.Visibility(*k_vis_3BS)
        sums = lse_BNQ, delta_BNQ, d_out_BQF.reshape(q_BQNH.shape)
        return [_flat(x) for x in kernel.backward(q_BQF.reshape(q_BQNH.shape), *keys, *sums)]

    def add(held, dq):
        part_dq, dk, dv = part(*held)
        return dq + part_dq, dk, dv

    def skip(held, dq):
        return dq, *(jnp.zeros(x.shape, jnp.float32) for x in held[:2])

    incoming = _send(held)
    dq, *d_keys = part(*held)
    for _ in range(jax.lax.axis_size(CONTEXT) - 1):
        held, (dq, *d_keys) = _delay_until(incoming, (dq, *d_keys))
        incoming, d_keys = _send((held, d_keys))
        dq, *parts = jax.lax.cond(_any_visible(vis, held[2]), add, skip, held, dq)
        d_keys = jax.tree.map(jnp.add, d_keys, parts)
    dk, dv = _send(d_keys)
    return dq.reshape(q_BQNH.shape), dk.reshape(k_BSKH.shape), dv.reshape(v_BSKH.shape)


def _flat(x_BSNH: jax.Array) -> jax.Array:
    return x_BSNH.reshape(*x_BSNH.shape[:2], -1)


def _send(tree):
    """Sends to the next device, receives from the previous one. Few arrays: a TPU runs five sends at a time."""
    steps = jax.lax.axis_size(CONTEXT)
    return jax.tree.map(lambda x: jax.lax.ppermute(x, CONTEXT, [(d, (d + 1) % steps) for d in range(steps)]), tree)


def _delay_until(incoming, result):
    """Delays the next send until `result` exists. Otherwise all sends start at once and none overlaps with compute."""
    return jax.lax.optimization_barrier((incoming, result))


def _any_visible(q_vis: mask.Visibility, k_vis_3BS: jax.Array) -> jax.Array:
    """bool: does any query of this shard see any of these keys, in any row? From minima and maxima alone."""
    Q, S = q_vis.index.shape[1], k_vis_3BS.shape[2]
    return jnp.any(mask.tile_classes(q_vis, mask.Visibility(*k_vis_3BS), Q, S) != mask.EMPTY)


def _merge(so_far, part):
    """Two results over disjoint keys -> the result over both: (float32[B, Q, N*H], float32[B, N, Q])."""
    (out_a, lse_a), (out_b, lse_b) = so_far, part
    lse = jnp.logaddexp(lse_a, lse_b)  # of two that saw nothing: -1e30 again
    share_BNQ = jnp.exp(lse_a - lse)
    # Repeats each head's share H times. A matmul with ones keeps the layout; jnp.repeat would not.
    N = share_BNQ.shape[1]
    ones_NF = jnp.repeat(jnp.eye(N, dtype=jnp.float32), out_a.shape[-1] // N, axis=1)
    share_BQF = jnp.einsum("BNQ,NF->BQF", share_BNQ, ones_NF, precision="high")
    out_b = out_b.astype(jnp.float32)
    return out_b + (out_a - out_b) * share_BQF, lse
