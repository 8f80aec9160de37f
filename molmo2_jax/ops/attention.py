"""Attention over the mesh: rows over data x fsdp, heads over tensor, the sequence over context.

Inside `shard_map` every device holds its own queries; keys, values and their three integers are gathered over
`context` (cheap under grouped queries), so any implementation that takes separate query and key visibilities serves.
"""

import functools

import jax

from molmo2_jax import sharding
from molmo2_jax.ops import mask
from molmo2_jax.ops.blockwise_attention import blockwise_attention
from molmo2_jax.ops.dense_attention import dense_attention

IMPLEMENTATIONS = {"dense": dense_attention, "blockwise": blockwise_attention}


def attention(q_BSNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, vis: mask.Visibility, *, implementation: str):
    """[B, S, N, H] attention of a row's queries to its keys under `mask.allowed`.

    Args:
      implementation: a key of IMPLEMENTATIONS.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"attention {implementation!r} is unknown; there are {sorted(IMPLEMENTATIONS)}")
    local = functools.partial(_gather_keys, IMPLEMENTATIONS[implementation])
    heads, rows = sharding.B_S_N_H, sharding.B_S
    # check_vma cannot follow loops whose carry starts as a constant; every output is sharded over every mesh axis.
    mapped = jax.shard_map(local, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False)
    return mapped(q_BSNH, k_BSKH, v_BSKH, vis)


def _gather_keys(implementation, q, k, v, vis):
    k, v, k_vis = jax.tree.map(lambda x: jax.lax.all_gather(x, sharding.CONTEXT, axis=1, tiled=True), (k, v, vis))
    return implementation(q, k, v, vis, k_vis)
