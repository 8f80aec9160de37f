"""Full attention among the patches of a crop as TPU kernels (Pallas).

A grid step holds a whole crop in VMEM, so softmax needs no running maximum and no list of tiles. In HBM the heads of
72 are consecutive, [patches, 16 * 72]; XLA would move every array through HBM to pad them. The kernels give each head
its own 128 lanes inside VMEM, and loop over the heads:

    crop   [736, 1152]    h0 h0 .. h1 h1 ..    ->    heads [16, 736, 128]    h0 h0 .. 0 0
                                                                             h1 h1 .. 0 0

Scores are in base 2, and transposed, [keys, queries], in the backward pass, as in pallas_tpu.py.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from molmo2_jax.ops.attention.pallas_tpu import LANES, LOG2_E, NEGATIVE, dot, scaled

HEADS_PER_STEP = 2  # heads per iteration of the loop, so that the softmax of one overlaps the matmuls of the other
PATCHES_PER_MATMUL = 256  # of one matmul of scores
VMEM_BYTES = 60 << 20  # the backward pass of a crop of 736 patches and 16 heads needs these; v4 has fewer


def forward(
    q_CPF: jax.Array, k_CPF: jax.Array, v_CPF: jax.Array, head_dim: int, patches: int
) -> tuple[jax.Array, jax.Array]:
    """Softmax attention within each crop, scale 1/sqrt(H): (out [C, P, F] in q's dtype, float32[C, N, P] lse).

    Args:
      head_dim: H; F is N consecutive heads.
      patches: real patches at the start of a crop; the rest is padding, which no query sees. P is a multiple of 16.

    The lse is in base 2, for `backward`.
    """
    C, P, F = q_CPF.shape
    N = F // head_dim
    lse = jax.ShapeDtypeStruct((C, N, P), jnp.float32)
    return _call(
        functools.partial(_forward_kernel, patches, head_dim),
        "crops_forward",
        (scaled(q_CPF, head_dim), k_CPF, v_CPF),
        (jax.ShapeDtypeStruct(q_CPF.shape, q_CPF.dtype), lse),
        [pltpu.VMEM((N, P, head_dim + -head_dim % LANES), x.dtype) for x in (q_CPF, k_CPF, v_CPF, q_CPF)],
    )


def backward(
    q_CPF: jax.Array,
    k_CPF: jax.Array,
    v_CPF: jax.Array,
    out_CPF: jax.Array,
    lse_CNP: jax.Array,
    d_out_CPF: jax.Array,
    head_dim: int,
    patches: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, keys and values, in their dtypes."""
    _, P, F = q_CPF.shape
    N = F // head_dim
    operands = (scaled(q_CPF, head_dim), k_CPF, v_CPF, out_CPF, d_out_CPF.astype(q_CPF.dtype))
    scratch = [pltpu.VMEM((N, P, head_dim + -head_dim % LANES), x.dtype) for x in (*operands, *operands[:3])]
    return _call(
        functools.partial(_backward_kernel, patches, head_dim),
        "crops_backward",
        (*operands, lse_CNP),
        tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands[:3]),
        scratch,
    )


def _call(kernel, name, operands, results, scratch):
    """One grid step per crop; the blocks are the arrays of one crop."""

    def of_crop(x):
        return pl.BlockSpec((1, *x.shape[1:]), lambda c: (c, 0, 0))

    return pl.pallas_call(
        kernel,
        grid=operands[0].shape[:1],
        in_specs=[of_crop(x) for x in operands],
        out_specs=[of_crop(x) for x in results],
        out_shape=results,
        scratch_shapes=scratch,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",), vmem_limit_bytes=VMEM_BYTES),
        name=name,
    )(*operands)


def _split(crop, heads, width: int) -> None:
    """Consecutive heads of `width` -> each head in its own lanes, padded with zeros."""
    empty = jnp.zeros((crop.shape[1], heads.shape[2] - width), crop.dtype)
    for h in range(heads.shape[0]):
        heads[h] = jnp.concatenate([crop[0, :, h * width : (h + 1) * width], empty], axis=1)


def _join(heads, crop, width: int) -> None:
    """The inverse of `_split`."""
    crop[0] = jnp.concatenate([heads[h][:, :width] for h in range(heads.shape[0])], axis=1)


def _each_head(heads: int, body) -> None:
    """Runs `body(head)` for all heads in a loop with a few heads per iteration, unrolled."""
    unrolled = math.gcd(heads, HEADS_PER_STEP)

    @pl.loop(0, heads // unrolled)
    def _(step):
        for n in range(unrolled):
            body(step * unrolled + n)


def _pieces(patches: int) -> list[slice]:
    starts = range(0, patches, PATCHES_PER_MATMUL)
    return [slice(start, min(start + PATCHES_PER_MATMUL, patches)) for start in starts]


def _forward_kernel(patches, width, q, k, v, out, lse, q_heads, k_heads, v_heads, out_heads):
    for crop, heads in ((q, q_heads), (k, k_heads), (v, v_heads)):
        _split(crop, heads, width)

    def head(h):
        for rows in _pieces(q.shape[1]):
            scores = dot(q_heads[h, rows], k_heads[h], 1, 1)
            key = jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
            scores = jnp.where(key < patches, scores, NEGATIVE)
            m = scores.max(-1, keepdims=True)
            probs = jnp.exp2(scores - m)
            l = probs.sum(-1, keepdims=True)
            out_heads[h, rows] = (dot(probs.astype(v.dtype), v_heads[h], 1, 0) / l).astype(out.dtype)
            lse[0, pl.ds(h, 1), rows] = (m + jnp.log2(l)).T

    _each_head(q_heads.shape[0], head)
    _join(out_heads, out, width)


def _backward_kernel(patches, width, q, k, v, out, d_out, lse, dq, dk, dv, *scratch):
    q_heads, k_heads, v_heads, out_heads, d_heads, dq_heads, dk_heads, dv_heads = scratch
    for crop, heads in ((q, q_heads), (k, k_heads), (v, v_heads), (out, out_heads), (d_out, d_heads)):
        _split(crop, heads, width)

    def head(h):
        q_, d_out_, parts = q_heads[h], d_heads[h], []
        delta = (d_out_.astype(jnp.float32) * out_heads[h].astype(jnp.float32)).sum(-1, keepdims=True).T
        for keys in _pieces(k.shape[1]):
            k_ = k_heads[h, keys]
            probs = jnp.exp2(dot(k_, q_, 1, 1) - lse[0, pl.ds(h, 1), :])
            if keys.stop > patches:
                key = jax.lax.broadcasted_iota(jnp.int32, probs.shape, 0)
                probs = jnp.where(key < patches - keys.start, probs, 0.0)
            dv_heads[h, keys] = dot(probs.astype(d_out_.dtype), d_out_, 1, 0).astype(dv.dtype)
            d_scores = (probs * (dot(v_heads[h, keys], d_out_, 1, 1) - delta)).astype(q_.dtype)
            # q is scaled by log2(e)/sqrt(H): dk is divided by log2(e), dq is scaled by 1/sqrt(H) at the end.
            dk_heads[h, keys] = (dot(d_scores, q_, 1, 0) * (1 / LOG2_E)).astype(dk.dtype)
            parts.append(dot(d_scores, k_, 0, 0))
        dq_heads[h] = (sum(parts) * width**-0.5).astype(dq.dtype)

    _each_head(q_heads.shape[0], head)
    for heads, crop in ((dq_heads, dq), (dk_heads, dk), (dv_heads, dv)):
        _join(heads, crop, width)
