"""Full attention among the patches of each crop, over the mesh: crops over `context`, heads over `tensor`.

"pallas" takes the TPU kernels; any other implementation goes crop by crop in plain JAX, since the 729 x 729 scores of
all crops at once would be gigabytes.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from molmo2_jax import sharding
from molmo2_jax.ops import pallas_crop_attention


def crop_attention(q_BCPNH: jax.Array, k_BCPNH: jax.Array, v_BCPNH: jax.Array, *, implementation: str) -> jax.Array:
    """[B, C, P, N, H] softmax attention, scale 1/sqrt(H), softmax in float32.

    Args:
      implementation: as in ops/attention.py.
    """
    local = _by_kernel if implementation == "pallas" else _by_crop
    spec = sharding.B_C_P_N_H
    return jax.shard_map(local, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)(q_BCPNH, k_BCPNH, v_BCPNH)


def _by_crop(q_BCPNH, k_BCPNH, v_BCPNH):
    @jax.checkpoint
    def crop(qkv):
        q, k, v = qkv
        scores_NPQ = jnp.einsum("PNH,QNH->NPQ", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        probs_NPQ = jax.nn.softmax(scores_NPQ, axis=-1).astype(v.dtype)
        return jnp.einsum("NPQ,QNH->PNH", probs_NPQ, v)

    flat = [x.reshape(-1, *x.shape[2:]) for x in (q_BCPNH, k_BCPNH, v_BCPNH)]
    return jax.lax.map(crop, tuple(flat)).reshape(q_BCPNH.shape)


def _by_kernel(q_BCPNH, k_BCPNH, v_BCPNH):
    flat = [x.reshape(-1, *x.shape[2:]) for x in (q_BCPNH, k_BCPNH, v_BCPNH)]
    return _kernel(*flat).reshape(q_BCPNH.shape)


@jax.custom_vjp
def _kernel(q, k, v):
    return _forward(q, k, v)[0]


def _forward(q, k, v):
    out, log_sum = checkpoint_name(pallas_crop_attention.forward(q, k, v), "attention")  # models.layers.REMAT
    return out, (q, k, v, out, log_sum)


def _backward(residuals, d_out):
    return pallas_crop_attention.backward(*residuals, d_out)


_kernel.defvjp(_forward, _backward)
