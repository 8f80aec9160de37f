"""From patches to visual tokens: pool 2x2 (images) or 3x3 (video) patches by attention, then project into the LLM.

One connector serves images, sets of images and video (public reference, vision_backbone.py:134-692). The query of a
visual token is the mean of its patches. Absent patches (-1) are masked everywhere.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from molmo2_jax import sharding
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.layers import Linear


@jax.named_scope("connector")
def gather_patches(features_BCPD: jax.Array, pooling_BGK: jax.Array) -> jax.Array:
    """[B, G, K, D]: the patches of each visual token, zeros where absent. Indices count within a vision shard."""

    def local(features_BCPD, pooling_BGK):
        flat_BPD = features_BCPD.reshape(features_BCPD.shape[0], -1, features_BCPD.shape[-1])
        picked_BGKD = jax.vmap(lambda f, i: f[jnp.maximum(i, 0)])(flat_BPD, pooling_BGK)
        return jnp.where(pooling_BGK[..., None] >= 0, picked_BGKD, 0)

    rows = sharding.B_G_K_D
    ins = (sharding.B_C_P_D, sharding.B_G_K)
    return jax.shard_map(local, in_specs=ins, out_specs=rows)(features_BCPD, pooling_BGK)


class Connector(nnx.Module):
    """Masked attention from each token's mean patch to its patches, then SwiGLU into the LLM's width."""

    def __init__(self, c: Molmo2Config, rngs: nnx.Rngs):
        features = c.vit.width * len(c.vit.feature_layers)
        heads, head_dim = c.connector.heads, c.connector.head_dim
        width = heads * head_dim
        qkv = functools.partial(
            Linear,
            rngs,
            shape=(features, heads, head_dim),
            axes=("vit_features", "heads", "head_dim"),
            bias=("heads", "head_dim"),
        )
        self.q = qkv(equation="BGD,DNH->BGNH", out=sharding.B_G_N_H)
        self.k = qkv(equation="BGKD,DNH->BGKNH", out=sharding.B_G_K_N_H)
        self.v = qkv(equation="BGKD,DNH->BGKNH", out=sharding.B_G_K_N_H)
        self.o = Linear(
            rngs,
            "BGNH,NHD->BGD",
            (heads, head_dim, width),
            ("heads", "head_dim", "vit_embed"),
            sharding.B_S_D,
            bias=("norm",),
        )
        project_in = functools.partial(
            Linear, rngs, "BGD,DF->BGF", (width, c.connector.mlp), ("vit_embed", "mlp"), sharding.B_S_F
        )
        self.gate, self.up = project_in(), project_in()
        self.down = Linear(rngs, "BGF,FD->BGD", (c.connector.mlp, c.llm.width), ("mlp", "embed"), sharding.B_S_D)

    @jax.named_scope("connector")
    def __call__(self, features_BCPD: jax.Array, pooling_BGK: jax.Array) -> jax.Array:
        """[B, C, P, D] features and int32[B, G, K] patch indices -> [B, G, D] visual tokens in the LLM's width."""
        present_BGK = pooling_BGK >= 0
        patches_BGKD = gather_patches(features_BCPD, pooling_BGK)
        counts_BG1 = jnp.maximum(present_BGK.sum(-1), 1)[..., None]
        query_BGD = (patches_BGKD.astype(jnp.float32).sum(2) / counts_BG1).astype(features_BCPD.dtype)

        q_BGNH, k_BGKNH, v_BGKNH = self.q(query_BGD), self.k(patches_BGKD), self.v(patches_BGKD)
        scores_BGNK = jnp.einsum("BGNH,BGKNH->BGNK", q_BGNH, k_BGKNH, preferred_element_type=jnp.float32)
        scores_BGNK = scores_BGNK * q_BGNH.shape[-1] ** -0.5
        scores_BGNK = jnp.where(present_BGK[:, :, None], scores_BGNK, jnp.finfo(jnp.float32).min)
        probs_BGNK = jax.nn.softmax(scores_BGNK, axis=-1).astype(v_BGKNH.dtype)
        x_BGD = self.o(jnp.einsum("BGNK,BGKNH->BGNH", probs_BGNK, v_BGKNH))
        return self.down(jax.nn.silu(self.gate(x_BGD)) * self.up(x_BGD))


@jax.named_scope("connector")
def add_visual_tokens(x_BSD: jax.Array, visual_BGD: jax.Array, slots_BG: jax.Array) -> jax.Array:
    """Adds visual token g to x at slots[g]; slot S means unused. Only pooled features cross `context`.

    x      t0 t1 t2 t3      slots 1 2 4(=S)      ->   t0, t1 + g0, t2 + g1, t3
    """

    def local(x_BSD, visual_BGD, slots_BG):
        visual_BGD = jax.lax.all_gather(visual_BGD, sharding.CONTEXT, axis=1, tiled=True)
        slots_BG = jax.lax.all_gather(slots_BG, sharding.CONTEXT, axis=1, tiled=True)
        slots_BG = slots_BG - jax.lax.axis_index(sharding.CONTEXT) * x_BSD.shape[1]
        slots_BG = jnp.where(slots_BG < 0, x_BSD.shape[1], slots_BG)  # .at counts negative indices from the end
        return jax.vmap(lambda x, g, i: x.at[i].add(g, mode="drop"))(x_BSD, visual_BGD, slots_BG)

    ins = (sharding.B_S_D, sharding.B_S_D, sharding.B_S)
    return jax.shard_map(local, in_specs=ins, out_specs=sharding.B_S_D)(x_BSD, visual_BGD, slots_BG)
