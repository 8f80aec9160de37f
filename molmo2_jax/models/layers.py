"""What vit, connector and llm share: declaring parameters, norms, dropout, and running a stack of layers.

A remat policy says which tensors of a layer are saved for the backward pass; the others are computed again. A layer
always saves its input, and each policy also saves what the policies below it save. Per token and layer of Qwen3-8B
(D = 4,096, 32 query and 8 kv heads of 128, F = 12,288, bfloat16), with the recomputation in millions of multiplications
by weights, of 193:

    policy      also saves                           bytes     recomputed
    none        everything, also float32 norms     291,280     0
    dots        up                                  86,144     0: norms, RoPE, silu alone
    gate        gate                                61,568     50: up
    out         attention's output projection       36,992     101: gate, up
    qkv         queries, keys, values               28,800     117: gate, up, out
    attention   out_BSNH, lse_BNS                   16,512     143: all but the mlp's down
    full        nothing                              8,192     143 and attention

OLMo3 normalises the output of a sub-layer, so that its backward pass also needs the mlp's output: "out" saves it.
The ViT has its own policy. Its width is a third or a quarter of the LLM's, so a byte saves as much less work, and it
has 729 patches per crop: 128 crops, one row of 16,384 tokens, take as much memory under "full" (25 layers x 93,312 x
2,304 bytes = 5.4 GB) as the LLM (36 layers x 16,384 x 8,192 bytes = 4.8 GB).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding
from molmo2_jax.ops.linear import project

# Remat policy -> names of the saved tensors (checkpoint_name), most work saved per byte first.
SAVED = {
    "full": (),
    "attention": ("attention",),  # the output of attention, and its lse
    "qkv": ("attention", "qkv"),  # the projections before it
    "out": ("attention", "qkv", "out"),  # the output projections of attention and mlp
    "gate": ("attention", "qkv", "out", "gate"),  # half of the mlp's hidden values (in a ViT all: its mlp has no gate)
    "dots": ("attention", "qkv", "out", "gate", "up"),
}
REMAT = {"none": None} | {name: jax.checkpoint_policies.save_only_these_names(*saved) for name, saved in SAVED.items()}


def param(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], *, std: float | None, stack: int | None
) -> nnx.Param:
    """A float32 parameter with its logical axes, initialised in its shards.

    Args:
      std: standard deviation of a normal draw; None: ones (a norm's scale); 0.0: zeros (a bias).
      stack: number of layers that share this declaration, a leading dimension; None: not stacked.
    """
    shape = shape if stack is None else (stack, *shape)
    spec = sharding.stored(axes, len(shape))
    if std:
        value = std * jax.random.normal(rngs.params(), shape, jnp.float32, out_sharding=spec)
    else:
        value = jnp.full(shape, 1.0 if std is None else 0.0, jnp.float32, out_sharding=spec)
    return nnx.Param(value, axes=axes)


class Linear(nnx.Module):
    """`einsum(equation, x, w) (+ b)` with w gathered over fsdp; gradients in float32 (ops/gradient_reduction.py)."""

    def __init__(
        self,
        rngs: nnx.Rngs,
        equation: str,
        shape: tuple[int, ...],
        axes: tuple[str, ...],
        out: P,
        *,
        std: float = 0.02,
        bias: tuple[str, ...] | None = None,
        stack: int | None = None,
    ):
        """`bias`: logical axes of the bias, which has the last sizes of the weight; None for no bias."""
        self.equation, self.out = equation, out
        self.w = param(rngs, shape, axes, std=std, stack=stack)
        self.b = None if bias is None else param(rngs, shape[-len(bias) :], bias, std=0.0, stack=stack)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = project(self.equation, x, self.w[...], self.w.axes, self.out)
        return y if self.b is None else (y.astype(jnp.float32) + gather_f32(self.b)).astype(x.dtype)


def gather_f32(p: nnx.Param) -> jax.Array:
    """A small parameter in float32, gathered over fsdp."""
    return jax.sharding.reshard(p[...], sharding.gathered(p.axes))


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last `len(axes)` dimensions as one vector, in float32."""

    def __init__(
        self,
        rngs: nnx.Rngs,
        shape: tuple[int, ...],
        axes: tuple[str, ...],
        eps: float,
        *,
        stack: int | None = None,
    ):
        self.eps, self.over = eps, tuple(range(-len(shape), 0))
        self.scale = param(rngs, shape, axes, std=None, stack=stack)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=self.over, keepdims=True) + self.eps)
        # Rounded to the compute dtype before the scale as well, like the reference.
        return (y.astype(x.dtype) * gather_f32(self.scale)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Mean and variance over the last dimension in float32, with scale and bias."""

    def __init__(self, rngs: nnx.Rngs, width: int, eps: float, *, stack: int | None = None):
        self.eps = eps
        self.scale = param(rngs, (width,), ("norm",), std=None, stack=stack)
        self.bias = param(rngs, (width,), ("norm",), std=0.0, stack=stack)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * gather_f32(self.scale) + gather_f32(self.bias)).astype(x.dtype)


def dropout_masks(x_BSD: jax.Array, key: jax.Array, rate_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two independent dropout masks, bool[B, S, D] each: False where an element is dropped, at its token's rate.

    Rates are exact to 2^-17. Draws do not depend on the mesh. Drawing 32 random bits costs more than any other
    elementwise work of a layer, so each mask gets 16 of them.
    """
    spec: P = jax.typeof(x_BSD).sharding.spec
    bits_BSD = jax.random.bits(key, x_BSD.shape, jnp.uint32, out_sharding=spec)
    dropped_BS1 = jnp.round(rate_BS[..., None] * 2**16).astype(jnp.uint32)
    masks = (bits_BSD & 0xFFFF) >= dropped_BS1, (bits_BSD >> 16) >= dropped_BS1
    # Drawn once and stored: otherwise XLA draws again inside each matmul that reads or writes x, at half its speed.
    return jax.lax.optimization_barrier(masks)


def dropout(x_BSD: jax.Array, mask_BSD: jax.Array, rate_BS: jax.Array) -> jax.Array:
    """Inverted dropout with a rate per token, with a mask from `dropout_masks`."""
    return jnp.where(mask_BSD, x_BSD / (1.0 - rate_BS[..., None]), 0.0).astype(x_BSD.dtype)


def run_stack(
    blocks: nnx.Module,
    step: Callable[[nnx.Module, Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    remat: str,
    *,
    layers: slice = slice(None),
) -> tuple[Any, Any]:
    """`lax.scan` over stacked layers: `carry, y = step(block, carry, x)` for each layer and its slice x of xs.

    Args:
      remat: a key of REMAT.
      layers: the layers to run, all by default.

    Returns:
      The last carry and the stacked y.
    """
    if remat not in REMAT:
        raise ValueError(f"remat {remat!r} is unknown; the choices are {sorted(REMAT)}")
    graph, params = nnx.split(blocks)
    params = jax.tree.map(lambda p: p[layers], params)

    def body(carry, layer):
        layer_params, x = layer
        return step(nnx.merge(graph, layer_params), carry, x)

    if REMAT[remat] is not None:
        body = jax.checkpoint(body, policy=REMAT[remat], prevent_cse=False)
    return jax.lax.scan(body, carry, (params, xs))
