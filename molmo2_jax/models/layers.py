"""What vit, connector and llm share: declaring parameters, norms, dropout, and running a stack of layers.

What a layer keeps for the backward pass has a name, its remat policy: a rung of a ladder between memory and computing
again. A layer always keeps its input. Bytes a token and layer, D = 4,096, 32 query and 8 kv heads of 128, F = 12,288,
bfloat16 (Qwen3-8B), and what is done again, in multiplications of weights (millions a token and layer, of 193); each
policy keeps what those below it keep, too:

    policy      also keeps                           bytes     done again
    none        everything, norms in float32, too  291,280     0
    dots        up                                  86,144     0: norms, RoPE, silu alone
    gate        gate                                61,568     50: up
    out         attention's output projection       36,992     101: gate, up
    qkv         queries, keys, values               28,800     117: gate, up, out
    attention   out_BSNH, log_sum_BNS               16,512     143: all but the mlp's down
    full        nothing                              8,192     143 and attention

OLMo3 normalises what a sub-layer gives, so that its backward pass needs the mlp's output, too: "out" keeps it.
A ViT has a policy of its own. Its width is a third or a quarter, so a byte of it saves as little of the work; and there
are 729 patches a crop: 128 crops, one row of 16,384 tokens, hold as much under "full" (25 layers x 93,312 x 2,304 bytes
= 5.4 GB) as the LLM (36 layers x 16,384 x 8,192 bytes = 4.8 GB).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding
from molmo2_jax.ops.linear import project

# Tensors of a layer by name, in the order in which they are worth keeping for the backward pass.
KEPT = {
    "full": (),
    "attention": ("attention",),  # what attention gives, and its log sum exp
    "qkv": ("attention", "qkv"),  # the projections in front of it
    "out": ("attention", "qkv", "out"),  # what goes back to the residual: attention's output projection, and the mlp's
    "gate": ("attention", "qkv", "out", "gate"),  # half of the mlp's hidden values (of a ViT all: its mlp has no gate)
    "dots": ("attention", "qkv", "out", "gate", "up"),
}
REMAT = {"none": None} | {name: jax.checkpoint_policies.save_only_these_names(*kept) for name, kept in KEPT.items()}


def param(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], *, std: float | None, stack: int | None
) -> nnx.Param:
    """A float32 parameter with its logical axes beside its shape, drawn in its own shards.

    Args:
      std: standard deviation of a normal draw; None: a constant 1 (a norm's scale); 0.0: zeros (a bias).
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
    """`einsum(equation, x, w) (+ b)` with the weight gathered over fsdp; gradients in float32 (ops/linear.py)."""

    def __init__(self, rngs, equation, shape, axes, out, *, std=0.02, bias: tuple[str, ...] | None = None, stack=None):
        """`bias`: logical axes of the bias, whose sizes are the last ones of the weight; None for no bias."""
        self.equation, self.out = equation, out
        self.w = param(rngs, shape, axes, std=std, stack=stack)
        self.b = None if bias is None else param(rngs, shape[-len(bias) :], bias, std=0.0, stack=stack)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = project(self.equation, x, self.w[...], self.w.axes, self.out)
        return y if self.b is None else (y.astype(jnp.float32) + use(self.b)).astype(x.dtype)


def use(p: nnx.Param) -> jax.Array:
    """A small parameter, whole over fsdp, in float32."""
    return jax.sharding.reshard(p[...], sharding.gathered(p.axes))


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last `len(axes)` dimensions as one vector, in float32."""

    def __init__(self, rngs, shape: tuple[int, ...], axes: tuple[str, ...], eps: float, *, stack=None):
        self.eps, self.over = eps, tuple(range(-len(shape), 0))
        self.scale = param(rngs, shape, axes, std=None, stack=stack)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=self.over, keepdims=True) + self.eps)
        # Rounded to the compute dtype before the scale, too, as in the reference.
        return (y.astype(x.dtype) * use(self.scale)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Mean and variance over the last dimension in float32, with scale and bias."""

    def __init__(self, rngs, width: int, eps: float, *, stack=None):
        self.eps = eps
        self.scale = param(rngs, (width,), ("norm",), std=None, stack=stack)
        self.bias = param(rngs, (width,), ("norm",), std=0.0, stack=stack)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
        return (y * use(self.scale) + use(self.bias)).astype(x.dtype)


def dropout_masks(x_BSD: jax.Array, key: jax.Array, rate_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two independent masks of what dropout keeps: bool[B, S, D] each, False at a token's rate (to 2^-17).

    Draws do not depend on the mesh. Drawing 32 bits costs more than anything else that is done to an element of a
    layer, so each mask has 16 of them.
    """
    spec: P = jax.typeof(x_BSD).sharding.spec
    bits_BSD = jax.random.bits(key, x_BSD.shape, jnp.uint32, out_sharding=spec)
    dropped_BS1 = jnp.round(rate_BS[..., None] * 2**16).astype(jnp.uint32)
    masks = (bits_BSD & 0xFFFF) >= dropped_BS1, (bits_BSD >> 16) >= dropped_BS1
    # Drawn once and kept as bits: XLA would draw anew inside each matmul that reads or writes x, at half its speed.
    return jax.lax.optimization_barrier(masks)


def dropout(x_BSD: jax.Array, kept_BSD: jax.Array, rate_BS: jax.Array) -> jax.Array:
    """Inverted dropout with a rate for each token, by a mask of `dropout_masks`."""
    return jnp.where(kept_BSD, x_BSD / (1.0 - rate_BS[..., None]), 0.0).astype(x_BSD.dtype)


def run_stack(blocks: nnx.Module, step: Callable, carry, xs, remat: str, *, layers: slice = slice(None)):
    """`lax.scan` over stacked layers: `carry, y = step(block, carry, x)` for each layer and its slice x of xs.

    Args:
      remat: a key of REMAT.
      layers: the layers to run, all by default.

    Returns:
      The last carry and the stacked y.
    """
    if remat not in REMAT:
        raise ValueError(f"remat {remat!r} is unknown; there are {sorted(REMAT)}")
    graph, params = nnx.split(blocks)
    params = jax.tree.map(lambda p: p[layers], params)

    def body(carry, layer):
        layer_params, x = layer
        return step(nnx.merge(graph, layer_params), carry, x)

    if REMAT[remat] is not None:
        body = jax.checkpoint(body, policy=REMAT[remat], prevent_cse=False)
    return jax.lax.scan(body, carry, (params, xs))
