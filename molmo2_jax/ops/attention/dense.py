"""Attention with the whole mask in memory: the oracle, and decoding, where there is one query. O(Q S) memory."""

import jax
import jax.numpy as jnp

from molmo2_jax.ops.attention import mask


def dense_attention(
    q_BQNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, q_vis: mask.Visibility, k_vis: mask.Visibility
) -> jax.Array:
    """Softmax attention under `mask.allowed`, grouped queries (N a multiple of K), scale 1/sqrt(H), softmax in float32.

    Returns [B, Q, N, H] in q's dtype; zeros for a query that sees no key.
    """
    B, Q, N, H = q_BQNH.shape
    K = k_BSKH.shape[2]
    q_BQKGH = q_BQNH.reshape(B, Q, K, N // K, H)
    scores_BKGQS = jnp.einsum("BQKGH,BSKH->BKGQS", q_BQKGH, k_BSKH, preferred_element_type=jnp.float32) * H**-0.5
    allowed_B11QS = mask.allowed(q_vis, k_vis)[:, None, None]
    scores_BKGQS = jnp.where(allowed_B11QS, scores_BKGQS, jnp.finfo(jnp.float32).min)
    probs_BKGQS = jnp.where(allowed_B11QS, jax.nn.softmax(scores_BKGQS, axis=-1), 0.0)
    out_BQKGH = jnp.einsum(
        "BKGQS,BSKH->BQKGH", probs_BKGQS.astype(v_BSKH.dtype), v_BSKH, preferred_element_type=jnp.float32
    )
    return out_BQKGH.reshape(B, Q, N, H).astype(q_BQNH.dtype)
