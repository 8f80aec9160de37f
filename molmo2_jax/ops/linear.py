"""A linear map of an fsdp-sharded float32 parameter: gathered and cast on the way in, float32 gradients on the way out.

Plain autodiff would reduce weight gradients over the mesh in the compute dtype. Here the gradient matmul accumulates
and is reduced in float32 and lands in the parameter's own shards, scattered as it is summed.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def project(equation: str, x: jax.Array, w: jax.Array, axes: Sequence[str], out: P) -> jax.Array:
    """`einsum(equation, x, w)` in x's dtype, sharded as `out`.

    Args:
      equation: "ti,io->to", where t, i and o are letters in that order: dimensions of tokens, of inputs, of outputs.
      w: float32, stored as `sharding.stored(axes)`.
      axes: logical axes of w; fsdp ones are gathered for the product.
    """
    return _product(equation, x, w, axes, out)


def _product(equation, x, w, axes, out):
    return jnp.einsum(equation, x, _gather(w, axes, x.dtype), out_sharding=out)


def _gather(w, axes, dtype):
    return jax.sharding.reshard(w.astype(dtype), sharding.gathered(axes))


def _forward(equation, x, w, axes, out):
    # Not `project` itself: remat policies look at matmuls, and would see one opaque call.
    return _product(equation, x, w, axes, out), (x, w)


def _backward(equation, axes, out, residuals, dy):
    x, w = residuals
    operands, y = equation.split("->")
    a, b = operands.split(",")
    dx = jnp.einsum(f"{y},{b}->{a}", dy, _gather(w, axes, x.dtype), out_sharding=jax.typeof(x).sharding.spec)
    dw = _weight_gradient(x, dy, len(set(a) & set(y)), jax.typeof(w).sharding.spec)
    return dx, dw.astype(w.dtype)


project.defvjp(_forward, _backward)


def _weight_gradient(x, dy, tokens: int, stored: P):
    """Sum over all tokens of products of x's inputs and dy's outputs, sharded as `stored`."""

    merged, plain = (functools.partial(f, tokens=tokens) for f in (merged_sum, token_sum))

    def local(x, dy):
        return scattered_sum(jax.lax.platform_dependent(x, dy, cpu=merged, default=plain), stored)

    specs = tuple(jax.typeof(a).sharding.spec for a in (x, dy))
    return jax.shard_map(local, in_specs=specs, out_specs=stored)(x, dy)


def scattered_sum(sums: jax.Array, stored: P, over: Sequence[str] = sharding.TOKENS) -> jax.Array:
    """Inside shard_map: the sum over the mesh axes `over` of a gradient that is whole over fsdp, as `stored`.

    Cut into shards as it is summed: a sum that is cut afterwards sends twice the bytes. XLA:TPU does so for each weight
    of a layer as long as the shards have a dimension of their own, with at most one dimension before it. Else it pads
    shards (256 rows to 280, 160 to 192) and permutes rows between devices to undo it, or sums first and cuts then.
    """
    rest = tuple(over)
    if sharding.FSDP in stored:
        at, ways = stored.index(sharding.FSDP), jax.lax.axis_size(sharding.FSDP)
        before, (size, *after) = sums.shape[:at], sums.shape[at:]
        merged = (math.prod(before),) if before else ()
        sums = sums.reshape(*merged, ways, size // ways, *after)
        sums = jax.lax.psum_scatter(sums, sharding.FSDP, scatter_dimension=len(merged))
        sums = sums.reshape(*before, size // ways, *after)
        rest = tuple(axis for axis in over if axis != sharding.FSDP)
    return jax.lax.psum(sums, rest)


def token_sum(x: jax.Array, dy: jax.Array, tokens: int) -> jax.Array:
    """float32[inputs, outputs] of [tokens, inputs] and [tokens, outputs]."""
    over = tuple(range(tokens))
    return jax.lax.dot_general(x, dy, ((over, over), ((), ())), preferred_element_type=jnp.float32)


def merged_sum(x: jax.Array, dy: jax.Array, tokens: int) -> jax.Array:
    """The same over one dimension of tokens. CPUs transpose x for several, slowly; TPUs would copy to merge them."""
    x_TI, dy_TO = (a.reshape(math.prod(a.shape[:tokens]), -1) for a in (x, dy))
    return token_sum(x_TI, dy_TO, 1).reshape(x.shape[tokens:] + dy.shape[tokens:])
