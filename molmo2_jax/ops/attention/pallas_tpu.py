"""Attention as TPU kernels (Pallas): forward, and a backward pass with five matmuls per tile.

A tile is a block of queries of all query heads of one kv head, and a block of its keys. The training step lists the
tiles with at least one allowed pair (`mask.tile_classes`), and the kernel prefetches the list as scalars: the grid is
as long as the list, so an empty tile costs neither a grid step nor memory traffic. (A query block without any tile has
one step of class EMPTY, which computes nothing and writes its zeros.)

    keys      0  1  2  3                        rows    queries keys flags
    queries 0 F                                 0       0       0    FULL, first and last of its queries
            1 F  P              list:           0       1       0    FULL, first
            2          P   (a second example)   0       1       1    PARTIAL, last
                                                0       2       3    PARTIAL, first and last

The list is sorted by row and query block. The forward pass keeps a query block's running softmax in VMEM from its first
tile to its last: m, l and acc. The backward pass keeps a query block's dq the same way, and the dk and dv of all keys
of a row and kv head, so that one pass over the list gives all three (Dao et al., FlashAttention-2, arXiv 2307.08691).

Scores are in base 2: queries are multiplied by log2(e)/sqrt(H) beforehand, so that exp2 needs no multiplication. In the
backward pass scores are transposed, [keys, queries], so that the values of a query form a row and no sum crosses lanes.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from molmo2_jax.ops.attention import mask

LANES = 128
NEGATIVE = -1e30  # a score that is not allowed; lse of a query that sees no key
_FLOOR = -1e20  # lowest running maximum: far above NEGATIVE, so that exp2(NEGATIVE - maximum) is 0
LOG2_E = math.log2(math.e)

# Flags of a step of the list; the two lowest bits are the class of its tile.
_FIRST, _LAST, _ROW_FIRST, _ROW_LAST = 4, 8, 16, 32


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Sizes of a chip's tiles, in tokens. Multiples of 128."""

    queries: int  # of a tile, per query head
    keys: int  # of a tile; if each kv head has one query head, tiles have twice the queries and keys
    compute: int  # queries and keys of one matmul of scores
    resident: int  # most keys whose dk and dv stay in VMEM in the backward pass
    vmem: int  # bytes a kernel may use


# By benchmarks/kernels_aot.py. Tiles of 512 x 1,024 cost the same on causal rows and compile twice as long.
_V5P = Blocks(512, 512, 512, resident=36_864, vmem=60 << 20)
BLOCKS = {
    "v4": Blocks(256, 512, 256, resident=4_096, vmem=15 << 20),
    "v5e": dataclasses.replace(_V5P, vmem=100 << 20),
    "v5p": _V5P,
    "v6e": dataclasses.replace(_V5P, vmem=100 << 20),
    "7x": _V5P,
}


def chip_blocks() -> Blocks:
    """Tile sizes of the chip a program is traced for; NotImplementedError if BLOCKS does not have the chip."""
    if not pltpu.is_tpu_device():
        raise NotImplementedError('attention "pallas" runs on TPUs only; elsewhere use "blockwise"')
    chip = str(pltpu.get_tpu_info().chip_version)
    if chip not in BLOCKS:
        raise NotImplementedError(f'attention "pallas" has no tile sizes for TPU {chip}, only for {sorted(BLOCKS)}')
    return BLOCKS[chip]


def forward(
    q_BQNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_vis: mask.Visibility,
    k_vis: mask.Visibility,
    blocks: Blocks | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Attention of queries to keys under `mask.allowed`, scale 1/sqrt(H), softmax in float32.

    Args:
      blocks: tile sizes; None: those of the chip.

    Returns:
      out [B, Q, N, H] in q's dtype and float32[B, N, Q] lse (natural log); zeros and NEGATIVE for a query that sees no
      key.

    Raises:
      NotImplementedError: the chip is not in BLOCKS, or H is not a multiple of 128.
    """
    call = _Call.of(q_BQNH, k_BSKH, blocks)
    q, k, v = call.pad_queries(scaled(q_BQNH, q_BQNH.shape[-1])), call.pad_keys(k_BSKH), call.pad_keys(v_BSKH)
    q_vis, k_vis = mask.pad_queries(q_vis, call.Q), mask.pad_keys(k_vis, call.S)
    steps, count = _steps(mask.tile_classes(q_vis, k_vis, call.bq, call.bk))
    out, lse = pl.pallas_call(
        functools.partial(_forward_kernel, call),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(steps),
            grid=(call.K, count),
            in_specs=[
                call.query_spec,
                call.key_spec,
                call.key_spec,
                call.spec((1, 2, call.bq, LANES), lambda h, b, i, j: (b, 0, i, 0)),
                call.spec((1, 3, call.bk), lambda h, b, i, j: (b, 0, j)),
            ],
            out_specs=[call.query_spec, call.per_query_spec],
            scratch_shapes=[pltpu.VMEM((call.G, call.bq, width), jnp.float32) for width in (LANES, LANES, call.H)],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((call.B, call.K, call.G, call.Q), jnp.float32),
        ],
        compiler_params=call.compiler_params,
        name="attention_forward",
    )(*steps, q, k, v, _columns(*mask.query_fields(q_vis)), jnp.stack(k_vis, axis=1))
    Q = q_BQNH.shape[1]
    return out[:, :Q].reshape(q_BQNH.shape), lse.reshape(call.B, -1, call.Q)[:, :, :Q]


def backward(
    q_BQNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_vis: mask.Visibility,
    k_vis: mask.Visibility,
    lse_BNQ: jax.Array,
    delta_BNQ: jax.Array,
    d_out_BQNH: jax.Array,
    blocks: Blocks | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients (dq, dk, dv), all float32, of the part of attention that goes to these keys (interfaces.py).

    Args:
      lse_BNQ: over all keys of the queries, of which these may be a part.
      delta_BNQ: sum_H(d_out * out) of the final output.
      blocks: tile sizes; None: those of the chip.
    """
    call = _Call.of(q_BQNH, k_BSKH, blocks)
    q, d_out = call.pad_queries(scaled(q_BQNH, q_BQNH.shape[-1])), call.pad_queries(d_out_BQNH.astype(q_BQNH.dtype))
    k, v = call.pad_keys(k_BSKH), call.pad_keys(v_BSKH)
    q_vis, k_vis = mask.pad_queries(q_vis, call.Q), mask.pad_keys(k_vis, call.S)

    def by_kv_head(x_BNQ, fill):
        x_BNQ = jnp.pad(x_BNQ, ((0, 0), (0, 0), (0, call.Q - x_BNQ.shape[2])), constant_values=fill)
        return x_BNQ.reshape(call.B, call.K, call.G, call.Q)

    # A query that sees no key: exp2(any score + NEGATIVE) is 0.
    lse = by_kv_head(jnp.where(lse_BNQ == NEGATIVE, -NEGATIVE, lse_BNQ * LOG2_E), -NEGATIVE)
    delta = by_kv_head(delta_BNQ, 0.0)
    of_keys = functools.partial(_backward_of_keys, call, q, d_out, lse, delta, q_vis)
    parts = []
    for start in range(0, call.S, call.resident):
        keys = slice(start, min(start + call.resident, call.S))
        parts.append(of_keys(k[:, keys], v[:, keys], mask.Visibility(*(x[:, keys] for x in k_vis))))
    dq = sum(part[0] for part in parts) * call.H**-0.5
    dk, dv = (jnp.concatenate(x, axis=1)[:, : k_BSKH.shape[1]] for x in list(zip(*parts, strict=True))[1:])
    dk = dk * (1 / LOG2_E)  # the kernel multiplies by queries scaled by log2(e)/sqrt(H)
    return dq[:, : q_BQNH.shape[1]].reshape(q_BQNH.shape), dk.reshape(k_BSKH.shape), dv.reshape(v_BSKH.shape)


def _backward_of_keys(call: "_Call", q, d_out, lse, delta, q_vis, k, v, k_vis):
    """(dq [B, Q, N*H] before its scale, dk and dv [B, S, K*H]) of keys that fit into VMEM."""
    steps, count = _steps(mask.tile_classes(q_vis, k_vis, call.bq, call.bk))
    in_hbm = pl.BlockSpec(memory_space=pl.ANY)
    S = k.shape[1]
    return pl.pallas_call(
        functools.partial(_backward_kernel, call),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(steps),
            grid=(call.K, count),
            in_specs=[
                call.query_spec,
                call.key_spec,
                call.key_spec,
                call.query_spec,
                call.per_query_spec,
                call.per_query_spec,
                call.spec((1, 2, call.bq), lambda h, b, i, j: (b, 0, i)),
                call.spec((1, 3, call.bk, LANES), lambda h, b, i, j: (b, 0, j, 0)),
            ],
            out_specs=[call.query_spec, in_hbm, in_hbm],
            scratch_shapes=[pltpu.VMEM((S, call.H), jnp.float32)] * 2,
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (q, k, v)],
        compiler_params=call.compiler_params,
        name="attention_backward",
    )(*steps, q, k, v, d_out, lse, delta, jnp.stack(mask.query_fields(q_vis), axis=1), _columns(*k_vis))


def scaled(q: jax.Array, head_dim: int) -> jax.Array:
    """Queries times log2(e)/sqrt(H), rounded to their dtype."""
    return (q.astype(jnp.float32) * (LOG2_E * head_dim**-0.5)).astype(q.dtype)


def _columns(*fields_BS: jax.Array) -> jax.Array:
    """int32[B, fields, S, LANES]: each token's integer in all lanes, which the VPU reads as a column."""
    x_BFS = jnp.stack(fields_BS, axis=1)
    return jnp.broadcast_to(x_BFS[..., None], (*x_BFS.shape, LANES))


def _steps(classes_Bqk: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """((rows, query blocks, key blocks, flags), count): int32[tiles] each; the grid runs the first `count`.

    A query block without any tile gets one step of class EMPTY, which computes nothing but writes its zeros.
    """
    visit = classes_Bqk != mask.EMPTY
    no_tile = ~visit.any(-1)
    visit = visit.at[:, :, 0].max(no_tile)
    count = jnp.sum(visit, dtype=jnp.int32)
    rows, qs, ks = jnp.nonzero(visit, size=visit.size, fill_value=0)
    n = jnp.arange(visit.size)

    def starts(*keys):  # where the list enters another row or query block
        changed = functools.reduce(jnp.logical_or, (key != jnp.roll(key, 1) for key in keys))
        return changed | (n == 0)

    def ends(starts):
        return jnp.roll(starts, -1) | (n == count - 1)

    first, row_first = starts(rows, qs), starts(rows)
    flags = classes_Bqk[rows, qs, ks]
    for bit, on in ((_FIRST, first), (_LAST, ends(first)), (_ROW_FIRST, row_first), (_ROW_LAST, ends(row_first))):
        flags = flags + bit * on
    return tuple(x.astype(jnp.int32) for x in (rows, qs, ks, flags)), count


@dataclasses.dataclass(frozen=True)
class _Call:
    """Sizes of one call: padded lengths Q and S, blocks bq and bk, G query heads per kv head."""

    B: int
    Q: int
    S: int
    K: int
    G: int
    H: int
    bq: int
    bk: int
    compute: int
    resident: int
    vmem: int

    @classmethod
    def of(cls, q_BQNH: jax.Array, k_BSKH: jax.Array, blocks: Blocks | None) -> "_Call":
        blocks = chip_blocks() if blocks is None else blocks
        B, Q, N, H = q_BQNH.shape
        S, K = k_BSKH.shape[1:3]
        if H % LANES:
            raise NotImplementedError(f'attention "pallas" needs a head dim that is a multiple of {LANES}, not {H}')
        times = 1 if N > K else 2
        bq, bk = _block(Q, times * blocks.queries), _block(S, times * blocks.keys)
        resident = max(blocks.resident // bk, 1) * bk
        Q, S = (-(-size // block) * block for size, block in ((Q, bq), (S, bk)))
        return cls(B, Q, S, K, N // K, H, bq, bk, blocks.compute, resident, blocks.vmem)

    def pad_queries(self, x: jax.Array) -> jax.Array:
        """[B, Q, N, H] -> [B, padded Q, N*H]: the query heads of a kv head are adjacent lanes, so nothing moves."""
        return jnp.pad(x.reshape(*x.shape[:2], -1), ((0, 0), (0, self.Q - x.shape[1]), (0, 0)))

    def pad_keys(self, x: jax.Array) -> jax.Array:
        return jnp.pad(x.reshape(*x.shape[:2], -1), ((0, 0), (0, self.S - x.shape[1]), (0, 0)))

    def spec(self, shape, index_map) -> pl.BlockSpec:
        """A block at `index_map(kv head, row, query block, key block)` of the step."""
        return pl.BlockSpec(shape, lambda h, n, rows, qs, ks, flags: index_map(h, rows[n], qs[n], ks[n]))

    @property
    def query_spec(self) -> pl.BlockSpec:
        return self.spec((1, self.bq, self.G * self.H), lambda h, b, i, j: (b, i, h))

    @property
    def key_spec(self) -> pl.BlockSpec:
        return self.spec((1, self.bk, self.H), lambda h, b, i, j: (b, j, h))

    @property
    def per_query_spec(self) -> pl.BlockSpec:
        return self.spec((1, 1, self.G, self.bq), lambda h, b, i, j: (b, h, 0, i))

    @property
    def compiler_params(self) -> pltpu.CompilerParams:
        # Kv heads are independent: the two cores of v4 and v5p split them.
        return pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=self.vmem)

    def pieces(self) -> list[tuple[slice, int, slice, slice]]:
        """(keys, query head, its lanes, queries) of each matmul of a tile; unrolled, so that they overlap."""
        return [
            (keys, g, slice(g * self.H, (g + 1) * self.H), queries)
            for keys in _split(self.bk, self.compute)
            for g in range(self.G)
            for queries in _split(self.bq, self.compute)
        ]


def _block(size: int, most: int) -> int:
    """Tokens of a block: the largest multiple of LANES between most/2 and `most` that divides `size`, else `most`."""
    fitting = [block for block in range(most, most // 2 - 1, -LANES) if size % block == 0]
    return fitting[0] if fitting else min(most, -(-size // LANES) * LANES)


def _split(size: int, most: int) -> list[slice]:
    step = next(step for step in range(min(size, most), 0, -LANES) if size % step == 0)
    return [slice(start, start + step) for start in range(0, size, step)]


def _widen(x: jax.Array, width: int) -> jax.Array:
    """[n, LANES] with equal lanes -> [n, width]."""
    return jnp.tile(x, (1, width // LANES))


def dot(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    """Product of two matrices over one axis of each, accumulated in float32."""
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)


def _run_tile(flag, tile) -> None:
    """Runs `tile(masked)` as the class of the step requires; nothing for EMPTY."""
    for tile_class, masked in ((mask.PARTIAL, True), (mask.FULL, False)):

        @pl.when((flag & 3) == tile_class)
        def _(masked=masked):
            tile(masked)


def _forward_kernel(call, rows, qs, ks, flags, q, k, v, q_vis, k_vis, out, lse, m, l, acc):
    """One step. m: running maxima, equal in all lanes; l: sums of exponentials, one part per lane; acc: of values."""
    flag = flags[pl.program_id(1)]

    @pl.when((flag & _FIRST) != 0)
    def _():
        m[...] = jnp.full_like(m, _FLOOR)
        l[...] = jnp.zeros_like(l)
        acc[...] = jnp.zeros_like(acc)

    def tile(masked):
        for keys, g, lanes, queries in call.pieces():
            values = v[0, keys, :]
            scores = dot(q[0, queries, lanes], k[0, keys, :], 1, 1)
            if masked:
                q_index, q_group = (_widen(q_vis[0, field, queries, :], scores.shape[1]) for field in range(2))
                k_fields = (k_vis[0, field : field + 1, keys] for field in range(3))
                scores = jnp.where(mask.visible(q_index, q_group, *k_fields), scores, NEGATIVE)
            m_old = m[g, queries]
            m_new = jnp.maximum(m_old, scores.max(-1, keepdims=True))
            probs = jnp.exp2(scores - _widen(m_new, scores.shape[1]))
            decay = jnp.exp2(m_old - m_new)
            m[g, queries] = m_new
            by_lane = sum(probs[:, at : at + LANES] for at in range(0, probs.shape[1], LANES))
            l[g, queries] = l[g, queries] * decay + by_lane
            update = dot(probs.astype(values.dtype), values, 1, 0)
            acc[g, queries] = acc[g, queries] * _widen(decay, call.H) + update

    _run_tile(flag, tile)

    @pl.when((flag & _LAST) != 0)
    def _():
        for g in range(call.G):
            sums = l[g].sum(-1, keepdims=True)
            sees_any = sums > 0
            sums = jnp.where(sees_any, sums, 1.0)
            out[0, :, g * call.H : (g + 1) * call.H] = (acc[g] / sums).astype(out.dtype)
            logs = jnp.where(sees_any, m[g] * (1 / LOG2_E) + jnp.log(sums), NEGATIVE)
            lse[0, 0, g, :] = logs.T[0]


def _backward_kernel(call, rows, qs, ks, flags, q, k, v, d_out, lse, delta, q_vis, k_vis, dq, dk_hbm, dv_hbm, dk, dv):
    """One step. dq: a block in VMEM until its last tile; dk and dv: scratch [S, H] of a row and kv head."""
    h, n = pl.program_id(0), pl.program_id(1)
    flag = flags[n]

    @pl.when((flag & _ROW_FIRST) != 0)
    def _():
        @pl.loop(0, dk.shape[0] // call.bk)
        def _(block):
            at = pl.ds(block * call.bk, call.bk)
            dk[at, :] = jnp.zeros((call.bk, call.H), jnp.float32)
            dv[at, :] = jnp.zeros((call.bk, call.H), jnp.float32)

    @pl.when((flag & _FIRST) != 0)
    def _():
        dq[...] = jnp.zeros_like(dq)

    def tile(masked):
        for keys, g, lanes, queries in call.pieces():
            at = pl.ds(pl.multiple_of(ks[n] * call.bk + keys.start, LANES), keys.stop - keys.start)
            q_, k_, v_, d_out_ = q[0, queries, lanes], k[0, keys, :], v[0, keys, :], d_out[0, queries, lanes]
            scores = dot(k_, q_, 1, 1)  # [keys, queries]
            if masked:
                q_fields = (q_vis[0, field : field + 1, queries] for field in range(2))
                k_fields = (_widen(k_vis[0, field, keys, :], scores.shape[1]) for field in range(3))
                scores = jnp.where(mask.visible(*q_fields, *k_fields), scores, NEGATIVE)
            probs = jnp.exp2(scores - lse[0, 0, g : g + 1, queries])
            dv[at, :] += dot(probs.astype(d_out_.dtype), d_out_, 1, 0)
            d_probs = dot(v_, d_out_, 1, 1)
            d_scores = (probs * (d_probs - delta[0, 0, g : g + 1, queries])).astype(q_.dtype)
            dk[at, :] += dot(d_scores, q_, 1, 0)
            dq[0, queries, lanes] += dot(d_scores, k_, 0, 0)

    _run_tile(flag, tile)

    @pl.when((flag & _ROW_LAST) != 0)
    def _():
        lanes = pl.ds(pl.multiple_of(h * call.H, LANES), call.H)
        pltpu.sync_copy(dk, dk_hbm.at[rows[n], :, lanes])
        pltpu.sync_copy(dv, dv_hbm.at[rows[n], :, lanes])
