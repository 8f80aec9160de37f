"""Attention over the mesh: rows over data x fsdp, heads over tensor, the sequence over context.

Two choices by name: a kernel, which computes attention on one device, and a strategy, which crosses `context` around
it (interfaces.py). One custom derivative serves every pair. "dense" is not a kernel: the oracle has jax's derivatives.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from molmo2_jax import sharding
from molmo2_jax.ops.attention import all_gather, blockwise, mask, pallas_tpu, ring, ulysses
from molmo2_jax.ops.attention.dense import dense_attention
from molmo2_jax.ops.attention.interfaces import Kernel, Strategy

KERNELS: dict[str, Kernel] = {"blockwise": blockwise, "pallas": pallas_tpu}
STRATEGIES: dict[str, Strategy] = {"all_gather": all_gather, "ring": ring, "ulysses": ulysses}
IMPLEMENTATIONS = ("dense", *KERNELS)


@jax.named_scope("attention")
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
      ValueError: `check_supported` refuses the combination on this mesh.
    """
    check_supported(implementation, context, k_BSKH.shape[2], jax.sharding.get_abstract_mesh())
    if implementation == "dense":
        local = _local_dense
    else:
        local = functools.partial(_attend, STRATEGIES[context], KERNELS[implementation])
    heads, rows = sharding.B_S_N_H, sharding.B_S
    # check_vma cannot follow loops whose carry starts as a constant; every output is sharded over every mesh axis.
    mapped = jax.shard_map(local, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False)
    return mapped(q_BSNH, k_BSKH, v_BSKH, vis)


def check_supported(
    implementation: str, context: str, kv_heads: int, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
) -> None:
    """Raises ValueError if `kv_heads` kv heads cannot be computed this way on `mesh`."""
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"attention {implementation!r} is unknown; the choices are {sorted(IMPLEMENTATIONS)}")
    if context not in STRATEGIES:
        raise ValueError(f"context {context!r} is unknown; the choices are {sorted(STRATEGIES)}")
    if mesh.shape[sharding.CONTEXT] == 1:
        return
    if implementation == "dense" and context != "all_gather":
        raise ValueError(f'attention "dense" needs context "all_gather" on this mesh, not {context!r}')
    if context == "ulysses":
        axes = (sharding.TENSOR, sharding.CONTEXT)
        sharding.check_divides({'kv heads under context "ulysses"': (kv_heads, axes)}, mesh)


def _local_dense(q, k, v, vis):
    k, v, k_vis = all_gather.gather((k, v, vis))
    return dense_attention(q, k, v, vis, k_vis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(strategy, kernel, q, k, v, vis):
    return _forward(strategy, kernel, q, k, v, vis)[0]


def _forward(strategy, kernel, q, k, v, vis):
    # Named for models.layers.REMAT: if both are saved, the backward pass does not run the forward kernel again.
    out, lse = checkpoint_name(strategy.forward(kernel, q, k, v, vis), "attention")
    return out, (q, k, v, vis, out, lse)


def _backward(strategy, kernel, residuals, d_out):
    q, k, v, vis, out, lse = residuals
    delta_BNQ = jnp.einsum("BQNH,BQNH->BNQ", d_out.astype(jnp.float32), out.astype(jnp.float32))
    grads = strategy.backward(kernel, q, k, v, vis, lse, delta_BNQ, d_out)
    return *(g.astype(x.dtype) for g, x in zip(grads, (q, k, v), strict=True)), None


_attend.defvjp(_forward, _backward)
