"""Full attention among the patches of each crop, over the mesh: patches over `context`, heads over `tensor`.

"pallas" uses the TPU kernels where a crop fits the chip's VMEM (not on v4). Everything else runs crop by crop in plain
JAX, since the 729 x 729 scores of all crops at once would take gigabytes.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas import tpu as pltpu

from molmo2_jax import sharding
from molmo2_jax.ops.attention import crop_attention_tpu


@jax.named_scope("crop_attention")
def crop_attention(
    q_BSF: jax.Array,
    k_BSF: jax.Array,
    v_BSF: jax.Array,
    *,
    heads: int,
    crop: int,
    patches: int,
    implementation: str,
) -> jax.Array:
    """[B, S, F] softmax attention of `heads` heads, consecutive in F, scale 1/sqrt(H), softmax in float32.

    Args:
      crop: length of a crop in S.
      patches: real patches at the start of a crop; the rest is padding, which no query sees.
      implementation: as in ops/attention/attention.py.
    """
    fits = not pltpu.is_tpu_device() or pltpu.get_tpu_info().vmem_capacity_bytes > crop_attention_tpu.VMEM_BYTES
    kernel = _tpu_kernel if implementation == "pallas" and fits else _crop_by_crop
    attend = functools.partial(kernel, q_BSF.shape[-1] // heads, patches)

    def local(*qkv):  # of one device
        return attend(*(x.reshape(-1, crop, x.shape[-1]) for x in qkv)).reshape(qkv[0].shape)

    spec = sharding.B_S_F
    return jax.shard_map(local, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)(q_BSF, k_BSF, v_BSF)


def _crop_by_crop(head_dim, patches, q_CPF, k_CPF, v_CPF):
    @jax.checkpoint
    def crop(qkv):
        q, k, v = (x.reshape(x.shape[0], -1, head_dim) for x in qkv)
        scores_NPQ = jnp.einsum("PNH,QNH->NPQ", q, k, preferred_element_type=jnp.float32) * head_dim**-0.5
        real_Q = jnp.arange(k.shape[0]) < patches
        probs_NPQ = jax.nn.softmax(scores_NPQ, axis=-1, where=real_Q).astype(v.dtype)
        return jnp.einsum("NPQ,QNH->PNH", probs_NPQ, v).reshape(qkv[0].shape)

    return jax.lax.map(crop, (q_CPF, k_CPF, v_CPF))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _tpu_kernel(head_dim, patches, q, k, v):
    return _forward(head_dim, patches, q, k, v)[0]


def _forward(head_dim, patches, q, k, v):
    out, lse = checkpoint_name(crop_attention_tpu.forward(q, k, v, head_dim, patches), "attention")
    return out, (q, k, v, out, lse)


def _backward(head_dim, patches, residuals, d_out):
    return crop_attention_tpu.backward(*residuals, d_out, head_dim, patches)


_tpu_kernel.defvjp(_forward, _backward)
