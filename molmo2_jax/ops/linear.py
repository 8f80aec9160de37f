"""A product with an fsdp-sharded float32 weight, which is cast and gathered for it.

Its gradient is accumulated and summed in float32 (gradient_reduction.py); plain autodiff would use the compute dtype.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding
from molmo2_jax.ops.gradient_reduction import weight_gradient


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def project(equation: str, x: jax.Array, w: jax.Array, axes: Sequence[str], out: P) -> jax.Array:
    """`einsum(equation, x, w)` in x's dtype, sharded as `out`.

    Args:
      equation: "ti,io->to", where t, i and o are letters in that order: dimensions of tokens, inputs and outputs.
      w: float32, sharded as `sharding.stored(axes)`.
      axes: logical axes of w; axes on fsdp are gathered for the product.
    """
    return _product(equation, x, w, axes, out)


def _product(equation, x, w, axes, out):
    return jnp.einsum(equation, x, _gather(w, axes, x.dtype), out_sharding=out)


def _gather(w, axes, dtype):
    return jax.sharding.reshard(w.astype(dtype), sharding.gathered(axes))


def _forward(equation, x, w, axes, out):
    # Not `project` itself: a remat policy needs to see the matmul, not one opaque call.
    return _product(equation, x, w, axes, out), (x, w)


def _backward(equation, axes, out, residuals, dy):
    x, w = residuals
    operands, y = equation.split("->")
    a, b = operands.split(",")
    dx = jnp.einsum(f"{y},{b}->{a}", dy, _gather(w, axes, x.dtype), out_sharding=jax.typeof(x).sharding.spec)
    dw = weight_gradient(x, dy, len(set(a) & set(y)), jax.typeof(w).sharding.spec)
    return dx, dw.astype(w.dtype)


project.defvjp(_forward, _backward)
