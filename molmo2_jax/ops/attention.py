"""Attention over the mesh: rows over data x fsdp, heads over tensor, the sequence over context.

Two choices, by name. A *kernel* computes attention of some queries to some keys on one device; a *strategy* moves keys
(or heads) over `context` around it. Both are modules with a `forward` and a `backward`, and one custom derivative
serves every pair of them:

    kernel.forward(q_BQNH, k_BSKH, v_BSKH, q_vis, k_vis) -> out_BQNH in q's dtype, log_sum_BNQ float32
    kernel.backward(q, k, v, q_vis, k_vis, log_sum_BNQ, delta_BNQ, d_out_BQNH) -> dq, dk, dv, all float32
    strategy.forward(kernel, q, k, v, vis) -> out, log_sum
    strategy.backward(kernel, q, k, v, vis, log_sum, delta_BNQ, d_out) -> dq, dk, dv

`log_sum` is log(sum(exp(scores))) over the keys (-1e30 where a query sees none, and zeros come out); the backward pass
takes the one over all keys, so that gradients of parts add up. `delta` is sum_H(d_out * out) in float32. "dense" is no
kernel: the oracle has plain automatic derivatives.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from molmo2_jax import sharding
from molmo2_jax.ops import all_gather, blockwise_attention, mask, pallas_attention, ring, ulysses
from molmo2_jax.ops.dense_attention import dense_attention

KERNELS = {"blockwise": blockwise_attention, "pallas": pallas_attention}
STRATEGIES = {"all_gather": all_gather, "ring": ring, "ulysses": ulysses}
IMPLEMENTATIONS = ("dense", *KERNELS)


def attention(
    q_BSNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    vis: mask.Visibility,
    *,
    implementation: str,
    context: str,
) -> jax.Array:
    """[B, S, N, H] attention of a row's queries to its keys under `mask.allowed`.

    Args:
      implementation: one of IMPLEMENTATIONS.
      context: a key of STRATEGIES.

    Raises:
      ValueError: what `check_supported` refuses on this mesh.
    """
    check_supported(implementation, context, k_BSKH.shape[2], jax.sharding.get_abstract_mesh())
    if implementation == "dense":
        local = _dense
    else:
        local = functools.partial(_attend, STRATEGIES[context], KERNELS[implementation])
    heads, rows = sharding.B_S_N_H, sharding.B_S
    # check_vma cannot follow loops whose carry starts as a constant; every output is sharded over every mesh axis.
    mapped = jax.shard_map(local, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False)
    return mapped(q_BSNH, k_BSKH, v_BSKH, vis)


def check_supported(implementation: str, context: str, kv_heads: int, mesh) -> None:
    """ValueError naming what cannot be done with `kv_heads` kv heads on `mesh` (a mesh or an abstract one)."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"attention {implementation!r} is unknown; there are {sorted(IMPLEMENTATIONS)}")
    if context not in STRATEGIES:
        raise ValueError(f"context {context!r} is unknown; there are {sorted(STRATEGIES)}")
    if mesh.shape[sharding.CONTEXT] == 1:
        return
    if implementation == "dense" and context != "all_gather":
        raise ValueError(f'attention "dense" crosses mesh axis context by "all_gather" only, not by {context!r}')
    if context == "ulysses":
        axes = (sharding.TENSOR, sharding.CONTEXT)
        sharding.check_divides({'kv heads under context "ulysses"': (kv_heads, axes)}, mesh)


def _dense(q, k, v, vis):
    k, v, k_vis = all_gather.gather((k, v, vis))
    return dense_attention(q, k, v, vis, k_vis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(strategy, kernel, q, k, v, vis):
    return _forward(strategy, kernel, q, k, v, vis)[0]


def _forward(strategy, kernel, q, k, v, vis):
    # Named for models.layers.REMAT: with these kept, the backward pass does not run the forward kernel again.
    out, log_sum = checkpoint_name(strategy.forward(kernel, q, k, v, vis), "attention")
    return out, (q, k, v, vis, out, log_sum)


def _backward(strategy, kernel, residuals, d_out):
    q, k, v, vis, out, log_sum = residuals
    delta_BNQ = jnp.einsum("BQNH,BQNH->BNQ", d_out.astype(jnp.float32), out.astype(jnp.float32))
    grads = strategy.backward(kernel, q, k, v, vis, log_sum, delta_BNQ, d_out)
    return *(g.astype(x.dtype) for g, x in zip(grads, (q, k, v), strict=True)), None


_attend.defvjp(_forward, _backward)
