"""Full attention among the patches of a crop as TPU kernels (Pallas).

A grid step holds all patches of one crop and of HEADS heads in VMEM, so softmax needs no running maximum and no list of
tiles. Heads of 72 are padded with zeros to 128 lanes on the way in and cut on the way out; the 729 patches are not
padded: they fill their blocks, and the compiler masks the edge.

Scores are in base 2, and lie transposed, [keys, queries], on the way back, as in ops/pallas_attention.py.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

LANES = 128
HEADS = 2  # of a step; four would be a tenth faster forward and compile twice as long
ROWS = 256  # patches of one matmul of scores
_VMEM = 15 << 20  # bytes; what every chip has
_LOG2_E = math.log2(math.e)


def forward(q_CPNH: jax.Array, k_CPNH: jax.Array, v_CPNH: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Softmax attention within each crop, scale 1/sqrt(H): out [C, P, N, H] in q's dtype, and float32 log sums.

    The log sums, [C, N / heads of a step, heads of a step, P] in base 2, are for `backward` alone.
    """
    q, k, v = _scaled(q_CPNH), _lanes(k_CPNH), _lanes(v_CPNH)
    grid, wide, sums = _specs(q_CPNH)
    out, log_sum = pl.pallas_call(
        _forward_kernel,
        grid=grid,
        in_specs=[wide] * 3,
        out_specs=[wide, sums],
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), _sums_shape(q_CPNH)],
        compiler_params=_PARAMS,
        name="crops_forward",
    )(q, k, v)
    return _heads(out, q_CPNH), log_sum


def backward(q_CPNH, k_CPNH, v_CPNH, out_CPNH, log_sum, d_out_CPNH) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, keys and values in their dtypes."""
    q, k, v, d_out = _scaled(q_CPNH), _lanes(k_CPNH), _lanes(v_CPNH), _lanes(d_out_CPNH)
    delta = jnp.einsum("CPNH,CPNH->CNP", d_out_CPNH, out_CPNH, preferred_element_type=jnp.float32)
    grid, wide, sums = _specs(q_CPNH)
    dq, dk, dv = pl.pallas_call(
        functools.partial(_backward_kernel, q_CPNH.shape[-1] ** -0.5),
        grid=grid,
        in_specs=[wide] * 4 + [sums] * 2,
        out_specs=[wide] * 3,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)],
        compiler_params=_PARAMS,
        name="crops_backward",
    )(q, k, v, d_out, log_sum, delta.reshape(log_sum.shape))
    return tuple(_heads(x, q_CPNH) for x in (dq, dk, dv))


_PARAMS = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=_VMEM)


def _specs(q_CPNH):
    """(grid, block of padded heads, block of sums): each step one crop and a few of its heads."""
    C, P, N, H = q_CPNH.shape
    heads = math.gcd(N, HEADS)
    wide = pl.BlockSpec((1, P, heads * (H + -H % LANES)), lambda c, h: (c, 0, h))
    return (C, N // heads), wide, pl.BlockSpec((1, 1, heads, P), lambda c, h: (c, h, 0, 0))


def _sums_shape(q_CPNH):
    C, P, N, _ = q_CPNH.shape
    heads = math.gcd(N, HEADS)
    return jax.ShapeDtypeStruct((C, N // heads, heads, P), jnp.float32)


def _lanes(x_CPNH: jax.Array) -> jax.Array:
    """[C, P, N, H] -> [C, P, N * padded H]."""
    C, P, _, H = x_CPNH.shape
    return jnp.pad(x_CPNH, ((0, 0), (0, 0), (0, 0), (0, -H % LANES))).reshape(C, P, -1)


def _scaled(q_CPNH: jax.Array) -> jax.Array:
    scale = _LOG2_E * q_CPNH.shape[-1] ** -0.5
    return _lanes((q_CPNH.astype(jnp.float32) * scale).astype(q_CPNH.dtype))


def _heads(x: jax.Array, like_CPNH: jax.Array) -> jax.Array:
    """The way back of `_lanes`."""
    C, P, N, H = like_CPNH.shape
    return x.reshape(C, P, N, -1)[..., :H]


def _dot(a, b, a_axis: int, b_axis: int) -> jax.Array:
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)


def _pieces(q, sums):
    """(head, its lanes) of a step, and slices of ROWS patches."""
    heads, patches = sums.shape[2], q.shape[1]
    width = q.shape[2] // heads
    rows = [slice(start, min(start + ROWS, patches)) for start in range(0, patches, ROWS)]
    return [(h, slice(h * width, (h + 1) * width)) for h in range(heads)], rows


def _forward_kernel(q, k, v, out, log_sum):
    heads, pieces = _pieces(q, log_sum)
    for h, lanes in heads:
        for rows in pieces:
            scores = _dot(q[0, rows, lanes], k[0, :, lanes], 1, 1)
            high = scores.max(-1, keepdims=True)
            probs = jnp.exp2(scores - high)
            weight = probs.sum(-1, keepdims=True)
            values = v[0, :, lanes]
            out[0, rows, lanes] = (_dot(probs.astype(values.dtype), values, 1, 0) / weight).astype(out.dtype)
            log_sum[0, 0, h : h + 1, rows] = (high + jnp.log2(weight)).T


def _backward_kernel(scale, q, k, v, d_out, log_sum, delta, dq, dk, dv):
    heads, pieces = _pieces(q, log_sum)
    for h, lanes in heads:
        q_, d_out_ = q[0, :, lanes], d_out[0, :, lanes]
        parts = []
        for keys in pieces:
            k_ = k[0, keys, lanes]
            probs = jnp.exp2(_dot(k_, q_, 1, 1) - log_sum[0, 0, h : h + 1, :])
            dv[0, keys, lanes] = _dot(probs.astype(d_out_.dtype), d_out_, 1, 0).astype(dv.dtype)
            d_probs = _dot(v[0, keys, lanes], d_out_, 1, 1)
            d_scores = (probs * (d_probs - delta[0, 0, h : h + 1, :])).astype(q_.dtype)
            # `q` holds scale and log2(e): keys want the one alone, queries have had neither.
            dk[0, keys, lanes] = (_dot(d_scores, q_, 1, 0) * (1 / _LOG2_E)).astype(dk.dtype)
            parts.append(_dot(d_scores, k_, 0, 0))
        dq[0, :, lanes] = (sum(parts) * scale).astype(dq.dtype)
