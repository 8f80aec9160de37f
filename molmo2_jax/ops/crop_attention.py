"""Full attention among the patches of each crop, over the mesh: rows over `context`, heads over `tensor`.

"pallas" takes the TPU kernels; any other implementation goes crop by crop in plain JAX, since the 729 x 729 scores of
all crops at once would be gigabytes.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from molmo2_jax import sharding
from molmo2_jax.ops import pallas_crop_attention


def crop_attention(
    q_BSNH: jax.Array, k_BSNH: jax.Array, v_BSNH: jax.Array, *, crop: int, patches: int, implementation: str
) -> jax.Array:
    """[B, S, N, H] softmax attention, scale 1/sqrt(H), softmax in float32.

    Args:
      crop: rows of S that a crop has.
      patches: of a crop; what lies behind them is padding, which is not seen.
      implementation: as in ops/attention.py.
    """
    attend = functools.partial(_kernel if implementation == "pallas" else _by_crop, patches)

    def local(*qkv):
        crops = [x.reshape(-1, crop, *x.shape[2:]) for x in qkv]
        return attend(*crops).reshape(qkv[0].shape)

    spec = sharding.B_S_N_H
    return jax.shard_map(local, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)(q_BSNH, k_BSNH, v_BSNH)


def _by_crop(patches, q_CPNH, k_CPNH, v_CPNH):
    @jax.checkpoint
    def crop(qkv):
        q, k, v = qkv
        scores_NPQ = jnp.einsum("PNH,QNH->NPQ", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        seen_Q = jnp.arange(k.shape[0]) < patches
        probs_NPQ = jax.nn.softmax(scores_NPQ, axis=-1, where=seen_Q).astype(v.dtype)
        return jnp.einsum("NPQ,QNH->PNH", probs_NPQ, v)

    return jax.lax.map(crop, (q_CPNH, k_CPNH, v_CPNH))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel(patches, q, k, v):
    return _forward(patches, q, k, v)[0]


def _forward(patches, q, k, v):
    out, log_sum = checkpoint_name(pallas_crop_attention.forward(q, k, v, patches), "attention")  # models.layers.REMAT
    return out, (q, k, v, out, log_sum)


def _backward(patches, residuals, d_out):
    return pallas_crop_attention.backward(*residuals, d_out, patches)


_kernel.defvjp(_forward, _backward)
