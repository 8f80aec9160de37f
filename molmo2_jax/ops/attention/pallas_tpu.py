"""Attention as TPU kernels (Pallas): forward, and a backward pass with five matmuls a tile.

A tile is a block of queries of all query heads of one kv head, and a block of its keys. The tiles with at least one
allowed pair are listed in the step (`mask.tile_classes`) and the list is prefetched as scalars: the grid is as long as
the list, so an empty tile costs neither a grid step nor memory traffic. (A query block without any tile has one step of
class EMPTY, which computes nothing and writes its zeros.)

    keys      0  1  2  3                        rows    queries keys flags
    queries 0 F                                 0       0       0    FULL, first and last of its queries
            1 F  P              list:           0       1       0    FULL, first
            2          P   (a second example)   0       1       1    PARTIAL, last
                                                0       2       3    PARTIAL, first and last

The list is sorted by row and query block. The forward pass keeps a query block's running softmax in VMEM from its first
tile to its last. The backward pass keeps a query block's dQ the same way and the dK and dV of all keys of a row and kv
head in VMEM, so that one walk gives all three (Dao et al., FlashAttention-2, arXiv 2307.08691).

Scores are in base 2: queries come in times log2(e)/sqrt(H), so that exp2 needs no multiplication. On the backward walk
they lie transposed, [keys, queries], so that what belongs to a query is a row and no sum goes across lanes.
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
NEGATIVE = -1e30  # a score that is not allowed; log_sum of a query that sees nothing
_FLOOR = -1e20  # lowest running maximum: far above NEGATIVE, so that exp2(NEGATIVE - maximum) is 0
LOG2_E = math.log2(math.e)

# Flags of a step of the list, beside its class in the two lowest bits.
_FIRST, _LAST, _ROW_FIRST, _ROW_LAST = 4, 8, 16, 32


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Sizes of a chip's tiles, in tokens. Multiples of 128."""

    queries: int  # of a tile, of each query head that shares its kv head
    keys: int  # of a tile; where each kv head has one query head, tiles have twice the queries and keys
    compute: int  # queries and keys of one matmul of scores
    resident: int  # most keys whose dK and dV stay in VMEM on the backward walk
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
    """Tile sizes of the chip a program is traced for; NotImplementedError where that is none of BLOCKS."""
    if not pltpu.is_tpu_device():
        raise NotImplementedError('attention "pallas" runs on TPUs alone; elsewhere use "blockwise"')
    chip = str(pltpu.get_tpu_info().chip_version)
    if chip not in BLOCKS:
        raise NotImplementedError(f'attention "pallas" has no tile sizes for TPU {chip}; there are {sorted(BLOCKS)}')
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
      out [B, Q, N, H] in q's dtype and float32[B, N, Q] natural log of the sum of exponentials; a query that sees
      nothing has zeros and NEGATIVE.

    Raises:
      NotImplementedError: not a TPU that BLOCKS knows, or H is no multiple of 128.
    """
    call = _Call.of(q_BQNH, k_BSKH, blocks)
    q, k, v = call.pad_queries(scaled(q_BQNH, q_BQNH.shape[-1])), call.pad_keys(k_BSKH), call.pad_keys(v_BSKH)
    q_vis, k_vis = mask.pad_queries(q_vis, call.Q), mask.pad_keys(k_vis, call.S)
    steps, count = _steps(mask.tile_classes(q_vis, k_vis, call.bq, call.bk))
    out, log_sum = pl.pallas_call(
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
            out_specs=[call.query_spec, call.sum_spec],
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
    return out[:, :Q].reshape(q_BQNH.shape), log_sum.reshape(call.B, -1, call.Q)[:, :, :Q]


def backward(
    q_BQNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_vis: mask.Visibility,
    k_vis: mask.Visibility,
    log_sum_BNQ: jax.Array,
    delta_BNQ: jax.Array,
    d_out_BQNH: jax.Array,
    blocks: Blocks | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of queries, keys and values, float32, of the part of attention that goes to these keys.

    Args:
      log_sum_BNQ: of all keys a query sees, these and others.
      delta_BNQ: float32, sum over H of d_out * out.
      blocks: tile sizes; None: those of the chip.
    """
    call = _Call.of(q_BQNH, k_BSKH, blocks)
    q, d_out = call.pad_queries(scaled(q_BQNH, q_BQNH.shape[-1])), call.pad_queries(d_out_BQNH.astype(q_BQNH.dtype))
    k, v = call.pad_keys(k_BSKH), call.pad_keys(v_BSKH)
    q_vis, k_vis = mask.pad_queries(q_vis, call.Q), mask.pad_keys(k_vis, call.S)

    def by_kv_head(x_BNQ, fill):
        x_BNQ = jnp.pad(x_BNQ, ((0, 0), (0, 0), (0, call.Q - x_BNQ.shape[2])), constant_values=fill)
        return x_BNQ.reshape(call.B, call.K, call.G, call.Q)

    # A query that sees nothing: exp2(any score + NEGATIVE) is 0.
    log_sum = by_kv_head(jnp.where(log_sum_BNQ == NEGATIVE, -NEGATIVE, log_sum_BNQ * LOG2_E), -NEGATIVE)
    delta = by_kv_head(delta_BNQ, 0.0)
    walk = functools.partial(_backward_walk, call, q, d_out, log_sum, delta, q_vis)
    parts = []
    for start in range(0, call.S, call.resident):
        keys = slice(start, min(start + call.resident, call.S))
        parts.append(walk(k[:, keys], v[:, keys], mask.Visibility(*(x[:, keys] for x in k_vis))))
    dq = sum(part[0] for part in parts) * call.H**-0.5
    dk, dv = (jnp.concatenate(x, axis=1)[:, : k_BSKH.shape[1]] for x in list(zip(*parts, strict=True))[1:])
    dk = dk * (1 / LOG2_E)  # the kernel multiplies by queries that hold log2(e)/sqrt(H)
    return dq[:, : q_BQNH.shape[1]].reshape(q_BQNH.shape), dk.reshape(k_BSKH.shape), dv.reshape(v_BSKH.shape)


def _backward_walk(call: "_Call", q, d_out, log_sum, delta, q_vis, k, v, k_vis):
    """(dq [B, Q, N*H] without its scale, dk and dv [B, S, K*H]) of keys that fit into VMEM."""
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
                call.sum_spec,
                call.sum_spec,
                call.spec((1, 2, call.bq), lambda h, b, i, j: (b, 0, i)),
                call.spec((1, 3, call.bk, LANES), lambda h, b, i, j: (b, 0, j, 0)),
            ],
            out_specs=[call.query_spec, in_hbm, in_hbm],
            scratch_shapes=[pltpu.VMEM((S, call.H), jnp.float32)] * 2,
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, jnp.float32) for x in (q, k, v)],
        compiler_params=call.compiler_params,
        name="attention_backward",
    )(*steps, q, k, v, d_out, log_sum, delta, jnp.stack(mask.query_fields(q_vis), axis=1), _columns(*k_vis))


def scaled(q: jax.Array, head_dim: int) -> jax.Array:
    """Queries times log2(e)/sqrt(H), rounded once more to their dtype."""
    return (q.astype(jnp.float32) * (LOG2_E * head_dim**-0.5)).astype(q.dtype)


def _columns(*fields_BS: jax.Array) -> jax.Array:
    """int32[B, fields, S, LANES]: each token's integers along a row of lanes, which the VPU reads as a column."""
    x_BFS = jnp.stack(fields_BS, axis=1)
    return jnp.broadcast_to(x_BFS[..., None], (*x_BFS.shape, LANES))


def _steps(classes_Bqk: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """((rows, query blocks, key blocks, flags), count): int32[tiles] each, of which the first `count` are run.

    A query block without any tile gets one step of class EMPTY, which computes nothing: its zeros must be written.
    """
    visit = classes_Bqk != mask.EMPTY
    nothing = ~visit.any(-1)
    visit = visit.at[:, :, 0].max(nothing)
    count = jnp.sum(visit, dtype=jnp.int32)
    rows, qs, ks = jnp.nonzero(visit, size=visit.size, fill_value=0)
    n = jnp.arange(visit.size)

    def starts(*keys):  # where the list comes to another row, or query block
        changed = functools.reduce(jnp.logical_or, (key != jnp.roll(key, 1) for key in keys))
        return changed | (n == 0)

    def ends(starts):
        return jnp.roll(starts, -1) | (n == count - 1)

    first, row_first = starts(rows, qs), starts(rows)
    flags = classes_Bqk[rows, qs, ks]
    for bit, there in ((_FIRST, first), (_LAST, ends(first)), (_ROW_FIRST, row_first), (_ROW_LAST, ends(row_first))):
        flags = flags + bit * there
    return tuple(x.astype(jnp.int32) for x in (rows, qs, ks, flags)), count


@dataclasses.dataclass(frozen=True)
class _Call:
    """Sizes of one call: padded lengths Q and S, blocks bq and bk, G query heads a kv head."""

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
        """[B, Q, N, H] -> [B, padded Q, N*H]: a kv head's query heads are neighbouring lanes, so nothing is moved."""
        return jnp.pad(x.reshape(*x.shape[:2], -1), ((0, 0), (0, self.Q - x.shape[1]), (0, 0)))

    def pad_keys(self, x: jax.Array) -> jax.Array:
        return jnp.pad(x.reshape(*x.shape[:2], -1), ((0, 0), (0, self.S - x.shape[1]), (0, 0)))

    def spec(self, shape, index_map) -> pl.BlockSpec:
        """`index_map(kv head, row, query block, key block)` of the step."""
        return pl.BlockSpec(shape, lambda h, n, rows, qs, ks, flags: index_map(h, rows[n], qs[n], ks[n]))

    @property
    def query_spec(self) -> pl.BlockSpec:
        return self.spec((1, self.bq, self.G * self.H), lambda h, b, i, j: (b, i, h))

    @property
    def key_spec(self) -> pl.BlockSpec:
        return self.spec((1, self.bk, self.H), lambda h, b, i, j: (b, j, h))

    @property
    def sum_spec(self) -> pl.BlockSpec:
        return self.spec((1, 1, self.G, self.bq), lambda h, b, i, j: (b, h, 0, i))

    @property
    def compiler_params(self) -> pltpu.CompilerParams:
        # Kv heads are independent: chips with two cores (v4, v5p) share them.
        return pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=self.vmem)

    def pieces(self) -> list[tuple[slice, int, slice, slice]]:
        """(keys, query head, its lanes, queries) of each matmul of a tile; unrolled, so that they overlap."""
        return [
            (keys, g, slice(g * self.H, (g + 1) * self.H), queries)
            for keys in _cut(self.bk, self.compute)
            for g in range(self.G)
            for queries in _cut(self.bq, self.compute)
        ]


def _block(size: int, most: int) -> int:
    """Tokens of a block: the largest divisor of `size` between most/2 and `most` that fills lanes, else `most`."""
    fitting = [block for block in range(most, most // 2 - 1, -LANES) if size % block == 0]
    return fitting[0] if fitting else min(most, -(-size // LANES) * LANES)


def _cut(size: int, most: int) -> list[slice]:
    step = next(step for step in range(min(size, most), 0, -LANES) if size % step == 0)
    return [slice(start, start + step) for start in range(0, size, step)]


def _widen(x: jax.Array, width: int) -> jax.Array:
    """[n, LANES] of equal lanes -> [n, width]."""
    return jnp.tile(x, (1, width // LANES))


def dot(a, b, a_axis: int, b_axis: int) -> jax.Array:
    """Product of two matrices over one axis of each, accumulated in float32."""
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)


def _classes(flag, tile) -> None:
    """Runs `tile(masked)` for the class of the step."""
    for tile_class, masked in ((mask.PARTIAL, True), (mask.FULL, False)):

        @pl.when((flag & 3) == tile_class)
        def _(masked=masked):
            tile(masked)


def _forward_kernel(call, rows, qs, ks, flags, q, k, v, q_vis, k_vis, out, log_sum, high, weight, total):
    """One step. high: running maxima, equal in all lanes; weight: sums of exponentials, a part in each lane."""
    flag = flags[pl.program_id(1)]

    @pl.when((flag & _FIRST) != 0)
    def _():
        high[...] = jnp.full_like(high, _FLOOR)
        weight[...] = jnp.zeros_like(weight)
        total[...] = jnp.zeros_like(total)

    def tile(masked):
        for keys, g, lanes, queries in call.pieces():
            values = v[0, keys, :]
            scores = dot(q[0, queries, lanes], k[0, keys, :], 1, 1)
            if masked:
                q_index, q_group = (_widen(q_vis[0, field, queries, :], scores.shape[1]) for field in range(2))
                k_fields = (k_vis[0, field : field + 1, keys] for field in range(3))
                scores = jnp.where(mask.visible(q_index, q_group, *k_fields), scores, NEGATIVE)
            before = high[g, queries]
            now = jnp.maximum(before, scores.max(-1, keepdims=True))
            probs = jnp.exp2(scores - _widen(now, scores.shape[1]))
            decay = jnp.exp2(before - now)
            high[g, queries] = now
            by_lane = sum(probs[:, at : at + LANES] for at in range(0, probs.shape[1], LANES))
            weight[g, queries] = weight[g, queries] * decay + by_lane
            update = dot(probs.astype(values.dtype), values, 1, 0)
            total[g, queries] = total[g, queries] * _widen(decay, call.H) + update

    _classes(flag, tile)

    @pl.when((flag & _LAST) != 0)
    def _():
        for g in range(call.G):
            sums = weight[g].sum(-1, keepdims=True)
            seen = sums > 0
            sums = jnp.where(seen, sums, 1.0)
            out[0, :, g * call.H : (g + 1) * call.H] = (total[g] / sums).astype(out.dtype)
            logs = jnp.where(seen, high[g] * (1 / LOG2_E) + jnp.log(sums), NEGATIVE)
            log_sum[0, 0, g, :] = logs.T[0]


def _backward_kernel(
    call, rows, qs, ks, flags, q, k, v, d_out, log_sum, delta, q_vis, k_vis, dq, dk_hbm, dv_hbm, dk, dv
):
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
            probs = jnp.exp2(scores - log_sum[0, 0, g : g + 1, queries])
            dv[at, :] += dot(probs.astype(d_out_.dtype), d_out_, 1, 0)
            d_probs = dot(v_, d_out_, 1, 1)
            d_scores = (probs * (d_probs - delta[0, 0, g : g + 1, queries])).astype(q_.dtype)
            dk[at, :] += dot(d_scores, q_, 1, 0)
            dq[0, queries, lanes] += dot(d_scores, k_, 0, 0)

    _classes(flag, tile)

    @pl.when((flag & _ROW_LAST) != 0)
    def _():
        lanes = pl.ds(pl.multiple_of(h * call.H, LANES), call.H)
        pltpu.sync_copy(dk, dk_hbm.at[rows[n], :, lanes])
        pltpu.sync_copy(dv, dv_hbm.at[rows[n], :, lanes])
