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
from molmo2_jax.ops.linear import project


def padded(patches: int) -> int:
    """Rows of a crop inside the ViT: a multiple of 16, the rows of a TPU's tile of bfloat16. 729 -> 736.

    The rows of all crops are one dimension S of a matmul then. As two, or unpadded, XLA stores crops inside patches
    and moves every array for the kernels that want whole crops.
    """
    return patches + -patches % 16


class Attention(nnx.Module):
    """Full attention among the patches of one crop, softmax in float32."""

    def __init__(self, c: VitConfig, rngs, stack):
        self.patches = c.patches
        project_in = functools.partial(
            Linear,
            rngs,
            "BSD,DNH->BSNH",
            (c.width, c.heads, c.head_dim),
            ("vit_embed", "heads", "head_dim"),
            sharding.B_S_N_H,
            bias=("heads", "head_dim"),
            stack=stack,
        )
        self.q, self.k, self.v = project_in(), project_in(), project_in()
        self.o = Linear(
            rngs,
            "BSNH,NHD->BSD",
            (c.heads, c.head_dim, c.width),
            ("heads", "head_dim", "vit_embed"),
            sharding.B_S_D,
            bias=("norm",),
            stack=stack,
        )

    def __call__(self, x_BSD: jax.Array, attention: str) -> jax.Array:
        qkv = checkpoint_name(tuple(_project_heads(linear, x_BSD) for linear in (self.q, self.k, self.v)), "qkv")
        heads = {"heads": self.q.w.shape[1], "crop": padded(self.patches), "patches": self.patches}
        out_BSF = checkpoint_name(crop_attention(*qkv, **heads, implementation=attention), "attention")
        w_NHD = self.o.w[...]
        w_FD = w_NHD.reshape(-1, w_NHD.shape[-1], out_sharding=sharding.stored(("heads", "vit_embed"), 2))
        y_BSD = project("BSF,FD->BSD", out_BSF, w_FD, ("heads", "vit_embed"), sharding.B_S_D)
        return checkpoint_name((y_BSD.astype(jnp.float32) + use(self.o.b)).astype(x_BSD.dtype), "out")


def _project_heads(linear: Linear, x_BSD: jax.Array) -> jax.Array:
    """[B, S, F], heads side by side. Split into 16 heads of 72, XLA would pad and move the result before attention."""
    w_DNH, b_NH = linear.w[...], use(linear.b)
    w_DF = w_DNH.reshape(w_DNH.shape[0], -1, out_sharding=sharding.stored(("vit_embed", "heads"), 2))
    y_BSF = project("BSD,DF->BSF", x_BSD, w_DF, ("vit_embed", "heads"), sharding.B_S_F)
    b_F = b_NH.reshape(-1, out_sharding=sharding.gathered(("heads",)))
    return (y_BSF.astype(jnp.float32) + b_F).astype(x_BSD.dtype)


class Block(nnx.Module):
    """Pre-norm attention and a tanh-GELU MLP, both with biases."""

    def __init__(self, c: VitConfig, rngs, stack):
        self.attn_norm = LayerNorm(rngs, c.width, c.norm_eps, stack=stack)
        self.attn = Attention(c, rngs, stack)
        self.mlp_norm = LayerNorm(rngs, c.width, c.norm_eps, stack=stack)
        self.up = Linear(
            rngs,
            "BSD,DF->BSF",
            (c.width, c.mlp),
            ("vit_embed", "mlp"),
            sharding.B_S_F,
            bias=("mlp",),
            std=c.width**-0.5,
            stack=stack,
        )
        self.down = Linear(
            rngs,
            "BSF,FD->BSD",
            (c.mlp, c.width),
            ("mlp", "vit_embed"),
            sharding.B_S_D,
            bias=("norm",),
            std=c.mlp**-0.5,
            stack=stack,
        )

    def __call__(self, x_BSD: jax.Array, attention: str) -> jax.Array:
        x_BSD = x_BSD + self.attn(self.attn_norm(x_BSD), attention)
        up_BSF = checkpoint_name(self.up(self.mlp_norm(x_BSD)), "gate")
        return x_BSD + self.down(jax.nn.gelu(up_BSF, approximate=True))


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
        B, C, patches, D = x_BCPD.shape
        crop = padded(patches)
        x_BCPD = jnp.pad(x_BCPD, ((0, 0), (0, 0), (0, crop - patches), (0, 0)))
        x_BSD = x_BCPD.reshape(B, C * crop, D, out_sharding=sharding.B_S_D)

        def step(block, x_BSD, _):
            return block(x_BSD, attention), None

        # The stack is run in pieces that end at the wanted layers, so that nothing else outlives the forward pass.
        features, start = {}, 0
        for stop in sorted(layer + 1 for layer in self.config.feature_layers):
            x_BSD, _ = run_stack(self.blocks, step, x_BSD, None, remat, layers=slice(start, stop))
            features[stop - 1], start = x_BSD, stop
        wanted = [
            features[layer].reshape(B, C, crop, D, out_sharding=sharding.B_C_P_D)
            for layer in self.config.feature_layers
        ]
        return jnp.concatenate([x_BCPD[:, :, :patches] for x_BCPD in wanted], axis=-1)
