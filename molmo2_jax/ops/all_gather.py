"""Crossing `context` by gathering keys: every device gets all keys and values of its rows, then attends by itself.

Cheap under grouped queries, where keys and values are a fraction of the queries; needs memory for S keys. Per device,
inside `shard_map`; `kernel` as in ops/attention.py.
"""

import jax

from molmo2_jax.sharding import CONTEXT


def forward(kernel, q_BQNH, k_BSKH, v_BSKH, vis):
    """Own queries to the keys of the whole row: (out_BQNH, log_sum_BNQ)."""
    k_BSKH, v_BSKH, k_vis = gather((k_BSKH, v_BSKH, vis))
    return kernel.forward(q_BQNH, k_BSKH, v_BSKH, vis, k_vis)


def backward(kernel, q_BQNH, k_BSKH, v_BSKH, vis, log_sum_BNQ, delta_BNQ, d_out_BQNH):
    """(dq, dk, dv) float32 of own queries and own keys. Keys are gathered again: a layer would keep S of them."""
    k_BSKH, v_BSKH, k_vis = gather((k_BSKH, v_BSKH, vis))
    dq, dk, dv = kernel.backward(q_BQNH, k_BSKH, v_BSKH, vis, k_vis, log_sum_BNQ, delta_BNQ, d_out_BQNH)
    return dq, *(jax.lax.psum_scatter(x, CONTEXT, scatter_dimension=1, tiled=True) for x in (dk, dv))


def gather(tree):
    """Arrays [B, S/n, ...] of every device -> [B, S, ...]."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, CONTEXT, axis=1, tiled=True), tree)
