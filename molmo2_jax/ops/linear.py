"""A linear map of an fsdp-sharded float32 parameter: gathered and cast on the way in, float32 gradients on the way out.

Plain autodiff would reduce weight gradients over the mesh in the compute dtype. Here the gradient matmul accumulates
and is reduced in float32 and lands in the parameter's own shards.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def project(equation: str, x: jax.Array, w: jax.Array, axes: Sequence[str], out: P) -> jax.Array:
    """`einsum(equation, x, w)` in x's dtype, sharded as `out`.

    Args:
      equation: "…,…->…", every letter of an operand also in the other one or in the result.
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
    dw = jnp.einsum(
        f"{a},{y}->{b}", x, dy, out_sharding=jax.typeof(w).sharding.spec, preferred_element_type=jnp.float32
    )
    return dx, dw.astype(w.dtype)


project.defvjp(_forward, _backward)
