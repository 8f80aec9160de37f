"""SigLIP2 So400m/14 on 378x378 crops: pre-norm blocks, learned positions, features of two of its blocks."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from molmo2_jax import sharding
from molmo2_jax.models.config import VitConfig
from molmo2_jax.models.layers import LayerNorm, Linear, gather_f32, param, run_stack
from molmo2_jax.ops.attention.crop_attention import crop_attention
from molmo2_jax.ops.linear import project


def padded_patches(patches: int) -> int:
    """Length of a crop inside the ViT: the next multiple of 16, the rows of a bfloat16 tile of a TPU. 729 -> 736.

    With it the patches of all crops are one dimension S of a matmul. With two dimensions, or unpadded, XLA stores crops
    inside patches and transposes every array for the kernels, which need whole crops.
    """
    return patches + -patches % 16


class HeadsIn(nnx.Module):
    """[B, S, D] -> [B, S, F]: consecutive heads, with parameters per head.

    If the result had the shape of 16 heads of 72, XLA would pad it and move it before attention.
    """

    def __init__(self, c: VitConfig, rngs: nnx.Rngs, stack: int | None):
        shape, axes = (c.width, c.heads, c.head_dim), ("vit_embed", "heads", "head_dim")
        self.w = param(rngs, shape, axes, std=0.02, stack=stack)
        self.b = param(rngs, shape[1:], axes[1:], std=0.0, stack=stack)

    def __call__(self, x_BSD: jax.Array) -> jax.Array:
        w_DNH, b_NH = self.w[...], gather_f32(self.b)
        w_DF = w_DNH.reshape(w_DNH.shape[0], -1, out_sharding=sharding.stored(("vit_embed", "heads"), 2))
        b_F = b_NH.reshape(-1, out_sharding=sharding.gathered(("heads",)))
        y_BSF = project("BSD,DF->BSF", x_BSD, w_DF, ("vit_embed", "heads"), sharding.B_S_F)
        return (y_BSF.astype(jnp.float32) + b_F).astype(x_BSD.dtype)


class HeadsOut(nnx.Module):
    """The output projection of consecutive heads: [B, S, F] -> [B, S, D]."""

    def __init__(self, c: VitConfig, rngs: nnx.Rngs, stack: int | None):
        shape, axes = (c.heads, c.head_dim, c.width), ("heads", "head_dim", "vit_embed")
        self.w = param(rngs, shape, axes, std=0.02, stack=stack)
        self.b = param(rngs, shape[-1:], ("norm",), std=0.0, stack=stack)

    def __call__(self, x_BSF: jax.Array) -> jax.Array:
        w_NHD = self.w[...]
        w_FD = w_NHD.reshape(-1, w_NHD.shape[-1], out_sharding=sharding.stored(("heads", "vit_embed"), 2))
        y_BSD = project("BSF,FD->BSD", x_BSF, w_FD, ("heads", "vit_embed"), sharding.B_S_D)
        return (y_BSD.astype(jnp.float32) + gather_f32(self.b)).astype(x_BSF.dtype)


class Attention(nnx.Module):
    """Full attention among the patches of one crop, softmax in float32."""

    def __init__(self, c: VitConfig, rngs: nnx.Rngs, stack: int | None):
        self.heads, self.patches = c.heads, c.patches
        self.q, self.k, self.v = (HeadsIn(c, rngs, stack) for _ in range(3))
        self.o = HeadsOut(c, rngs, stack)

    def __call__(self, x_BSD: jax.Array, attention: str) -> jax.Array:
        qkv = checkpoint_name((self.q(x_BSD), self.k(x_BSD), self.v(x_BSD)), "qkv")
        sizes = {"heads": self.heads, "crop": padded_patches(self.patches), "patches": self.patches}
        out_BSF = checkpoint_name(crop_attention(*qkv, **sizes, implementation=attention), "attention")
        return checkpoint_name(self.o(out_BSF), "out")


class Block(nnx.Module):
    """Pre-norm attention and a tanh-GELU MLP, both with biases."""

    def __init__(self, c: VitConfig, rngs: nnx.Rngs, stack: int | None):
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

    @jax.named_scope("vit")
    def __call__(self, crops_BCPX: jax.Array, dtype: jnp.dtype, *, remat: str, attention: str) -> jax.Array:
        pixels_BCPX = (crops_BCPX.astype(jnp.float32) / 127.5 - 1.0).astype(dtype)  # mean = std = 0.5
        x_BCPD = (self.patch(pixels_BCPX) + gather_f32(self.positions)).astype(dtype)
        B, C, patches, D = x_BCPD.shape
        crop = padded_patches(patches)
        x_BCPD = jnp.pad(x_BCPD, ((0, 0), (0, 0), (0, crop - patches), (0, 0)))
        x_BSD = x_BCPD.reshape(B, C * crop, D, out_sharding=sharding.B_S_D)

        def step(block, x_BSD, _):
            return block(x_BSD, attention), None

        # One scan per feature layer, ending at it: no other layer's output outlives the forward pass.
        features, start = {}, 0
        for stop in sorted(layer + 1 for layer in self.config.feature_layers):
            x_BSD, _ = run_stack(self.blocks, step, x_BSD, None, remat, layers=slice(start, stop))
            features[stop - 1], start = x_BSD, stop
        outputs = [
            features[layer].reshape(B, C, crop, D, out_sharding=sharding.B_C_P_D)
            for layer in self.config.feature_layers
        ]
        return jnp.concatenate([x_BCPD[:, :, :patches] for x_BCPD in outputs], axis=-1)
