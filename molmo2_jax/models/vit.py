"""SigLIP2 So400m/14 on 378x378 crops: pre-norm blocks, learned positions, features of two of its blocks."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from molmo2_jax import sharding
from molmo2_jax.models.config import VitConfig
from molmo2_jax.models.layers import LayerNorm, Linear, param, run_stack, use
from molmo2_jax.ops.crop_attention import crop_attention

# Patches of a crop are padded to a multiple of a TPU's tile of bfloat16 rows, 729 to 736: else XLA stores crops inside
# patches, and moves every array for the kernels that want whole crops.
ROWS = 16


class Attention(nnx.Module):
    """Full attention among the patches of one crop, softmax in float32."""

    def __init__(self, c: VitConfig, rngs, stack):
        self.patches = c.patches
        project_in = functools.partial(
            Linear,
            rngs,
            "BCPD,DNH->BCPNH",
            (c.width, c.heads, c.head_dim),
            ("vit_embed", "heads", "head_dim"),
            sharding.B_C_P_N_H,
            bias=("heads", "head_dim"),
            stack=stack,
        )
        self.q, self.k, self.v = project_in(), project_in(), project_in()
        self.o = Linear(
            rngs,
            "BCPNH,NHD->BCPD",
            (c.heads, c.head_dim, c.width),
            ("heads", "head_dim", "vit_embed"),
            sharding.B_C_P_D,
            bias=("norm",),
            stack=stack,
        )

    def __call__(self, x_BCPD: jax.Array, attention: str) -> jax.Array:
        qkv = checkpoint_name((self.q(x_BCPD), self.k(x_BCPD), self.v(x_BCPD)), "qkv")
        out_BCPNH = checkpoint_name(crop_attention(*qkv, patches=self.patches, implementation=attention), "attention")
        return checkpoint_name(self.o(out_BCPNH), "out")


class Block(nnx.Module):
    """Pre-norm attention and a tanh-GELU MLP, both with biases."""

    def __init__(self, c: VitConfig, rngs, stack):
        self.attn_norm = LayerNorm(rngs, c.width, c.norm_eps, stack=stack)
        self.attn = Attention(c, rngs, stack)
        self.mlp_norm = LayerNorm(rngs, c.width, c.norm_eps, stack=stack)
        self.up = Linear(
            rngs,
            "BCPD,DF->BCPF",
            (c.width, c.mlp),
            ("vit_embed", "mlp"),
            sharding.B_C_P_F,
            bias=("mlp",),
            std=c.width**-0.5,
            stack=stack,
        )
        self.down = Linear(
            rngs,
            "BCPF,FD->BCPD",
            (c.mlp, c.width),
            ("mlp", "vit_embed"),
            sharding.B_C_P_D,
            bias=("norm",),
            std=c.mlp**-0.5,
            stack=stack,
        )

    def __call__(self, x_BCPD: jax.Array, attention: str) -> jax.Array:
        x_BCPD = x_BCPD + self.attn(self.attn_norm(x_BCPD), attention)
        up_BCPF = checkpoint_name(self.up(self.mlp_norm(x_BCPD)), "gate")
        return x_BCPD + self.down(jax.nn.gelu(up_BCPF, approximate=True))


class Vit(nnx.Module):
    """uint8[B, C, P, X] pixels of patches -> [B, C, P, D * len(feature_layers)] features."""

    def __init__(self, c: VitConfig, rngs: nnx.Rngs):
        self.config = c
        self.patch = Linear(
            rngs,
            "BCPX,XD->BCPD",
            (c.patch_pixels, c.width),
            ("pixels", "vit_embed"),
            sharding.B_C_P_D,
            bias=("norm",),
            std=c.patch_pixels**-0.5,
        )
        self.positions = param(rngs, (c.patches, c.width), ("patch", "norm"), std=c.width**-0.5, stack=None)
        self.blocks = Block(c, rngs, c.layers)

    def __call__(self, crops_BCPX: jax.Array, dtype: jnp.dtype, *, remat: str, attention: str) -> jax.Array:
        pixels_BCPX = (crops_BCPX.astype(jnp.float32) / 127.5 - 1.0).astype(dtype)  # mean = std = 0.5
        x_BCPD = (self.patch(pixels_BCPX) + use(self.positions)).astype(dtype)
        patches = x_BCPD.shape[2]
        x_BCPD = jnp.pad(x_BCPD, ((0, 0), (0, 0), (0, -patches % ROWS), (0, 0)))

        def step(block, x_BCPD, _):
            return block(x_BCPD, attention), None

        # The stack is run in pieces that end at the wanted layers, so that nothing else outlives the forward pass.
        features, start = {}, 0
        for stop in sorted(layer + 1 for layer in self.config.feature_layers):
            x_BCPD, _ = run_stack(self.blocks, step, x_BCPD, None, remat, layers=slice(start, stop))
            features[stop - 1], start = x_BCPD, stop
        return jnp.concatenate([features[layer][:, :, :patches] for layer in self.config.feature_layers], axis=-1)
