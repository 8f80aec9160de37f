"""Weight gradients, accumulated in float32 and summed in float32 over the mesh into the weight's shards.

Plain autodiff would reduce weight gradients over the mesh in the compute dtype. Here the gradient matmul accumulates in
float32, and one reduce-scatter sums the result.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding


def weight_gradient(x: jax.Array, dy: jax.Array, tokens: int, stored: P) -> jax.Array:
    """float32[inputs, outputs]: the sum over all tokens of x * dy, sharded as `stored`."""
    merged, plain = (functools.partial(f, tokens=tokens) for f in (merged_sum, token_sum))

    def local(x, dy):
        return scattered_sum(jax.lax.platform_dependent(x, dy, cpu=merged, default=plain), stored)

    specs = tuple(jax.typeof(a).sharding.spec for a in (x, dy))
    return jax.shard_map(local, in_specs=specs, out_specs=stored)(x, dy)


def scattered_sum(sums: jax.Array, stored: P, over: Sequence[str] = sharding.TOKENS) -> jax.Array:
    """Inside shard_map: sums a gradient, not sharded over fsdp, over the mesh axes `over` and shards it as `stored`.

    A reduce-scatter: an all-reduce whose result is sliced sends twice the bytes. XLA:TPU keeps the reduce-scatter of
    each weight of a layer if the shards have a dimension of their own, with at most one dimension before it. Otherwise
    it pads shards (256 rows to 280, 160 to 192) and permutes rows between devices, or uses an all-reduce and a slice.
    """
    rest = tuple(over)
    if sharding.FSDP in stored:
        at, shards = stored.index(sharding.FSDP), jax.lax.axis_size(sharding.FSDP)
        before, (size, *after) = sums.shape[:at], sums.shape[at:]
        merged = (math.prod(before),) if before else ()
        sums = sums.reshape(*merged, shards, size // shards, *after)
        sums = jax.lax.psum_scatter(sums, sharding.FSDP, scatter_dimension=len(merged))
        sums = sums.reshape(*before, size // shards, *after)
        rest = tuple(axis for axis in over if axis != sharding.FSDP)
    return jax.lax.psum(sums, rest)


def token_sum(x: jax.Array, dy: jax.Array, tokens: int) -> jax.Array:
    """float32[inputs, outputs] from [tokens, inputs] and [tokens, outputs], which begin with `tokens` dimensions."""
    over = tuple(range(tokens))
    return jax.lax.dot_general(x, dy, ((over, over), ((), ())), preferred_element_type=jnp.float32)


def merged_sum(x: jax.Array, dy: jax.Array, tokens: int) -> jax.Array:
    """`token_sum` with one merged token dimension. With several, CPUs transpose x, slowly; TPUs copy to merge them."""
    x_TI, dy_TO = (a.reshape(math.prod(a.shape[:tokens]), -1) for a in (x, dy))
    return token_sum(x_TI, dy_TO, 1).reshape(x.shape[tokens:] + dy.shape[tokens:])
