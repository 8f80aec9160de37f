"""Context strategy "all_gather": every device gathers all keys and values of its rows, then attends on its own.

Cheap under grouped queries, where keys and values are a fraction of the queries. Needs memory for S keys.
"""

from typing import TypeVar

import jax

from molmo2_jax.ops.attention.interfaces import Kernel
from molmo2_jax.ops.attention.mask import Visibility
from molmo2_jax.sharding import CONTEXT

Tree = TypeVar("Tree")


def forward(
    kernel: Kernel, q_BQNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, vis: Visibility
) -> tuple[jax.Array, jax.Array]:
    """(out_BQNH, lse_BNQ) of this device's queries."""
    k_BSKH, v_BSKH, k_vis = gather((k_BSKH, v_BSKH, vis))
    return kernel.forward(q_BQNH, k_BSKH, v_BSKH, vis, k_vis)


def backward(
    kernel: Kernel,
    q_BQNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    vis: Visibility,
    lse_BNQ: jax.Array,
    delta_BNQ: jax.Array,
    d_out_BQNH: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(dq, dk, dv), float32. Gathers the keys again: each layer would otherwise save S of them."""
    k_BSKH, v_BSKH, k_vis = gather((k_BSKH, v_BSKH, vis))
    dq, dk, dv = kernel.backward(q_BQNH, k_BSKH, v_BSKH, vis, k_vis, lse_BNQ, delta_BNQ, d_out_BQNH)
    return dq, *(jax.lax.psum_scatter(x, CONTEXT, scatter_dimension=1, tiled=True) for x in (dk, dv))


def gather(tree: Tree) -> Tree:
    """Arrays [B, S/n, ...] of every device -> [B, S, ...]."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, CONTEXT, axis=1, tiled=True), tree)
