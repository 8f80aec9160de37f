"""Attention tile by tile in plain JAX: O(S) memory, and empty tiles cost nothing. A kernel for any device.

A tile is `block` queries and `block` keys of one row. The kernel lists the tiles with at least one allowed pair
(`mask.tile_classes`), then loops over the list; each tile updates the running softmax of its query block: m, the
maximum, l, the sum of exponentials, and acc, the weighted sum of values. The trip count is the length of the list, so a
row that is mostly masked is mostly free. The backward pass loops over the same list with five matmuls per tile (Dao et
al., FlashAttention-2, arXiv 2307.08691).

    tiles of a causal row      1 . .      list   (0, 0) (1, 0) (1, 1) (2, 0) (2, 1) (2, 2)
                               1 1 .
                               1 1 1
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from molmo2_jax.ops.attention import mask

_NEGATIVE = -1e30  # finite, so that a fully masked query of a tile gives no NaN

BLOCK = 256  # benchmarks/attention.py on a CPU: 128 and 512 are slower


def forward(
    q_BQNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_vis: mask.Visibility,
    k_vis: mask.Visibility,
    block: int = BLOCK,
) -> tuple[jax.Array, jax.Array]:
    """Attention under `mask.allowed`, grouped queries (N a multiple of K), scale 1/sqrt(H). Any Q and S.

    Returns:
      out_BQNH in q's dtype and float32 lse_BNQ; zeros and -1e30 for a query that sees no key.
    """
    t = _Tiling.of(q_BQNH, k_BSKH, block)
    q, k, v = t.fold_queries(q_BQNH) * t.scale, t.fold_keys(k_BSKH), t.fold_keys(v_BSKH)
    tiles = _Tiles(t, q_vis, k_vis)

    def tile(n, carry):
        acc, m, l = carry
        b, i, j, keep = tiles[n]
        scores = jnp.einsum("kqh,ksh->kqs", q[b, i], k[b, j], preferred_element_type=jnp.float32)
        scores = jnp.where(keep, scores, _NEGATIVE)
        m_new = jnp.maximum(m[b, i], scores.max(-1))
        probs = jnp.where(keep, jnp.exp(scores - m_new[..., None]), 0.0)
        decay = jnp.exp(m[b, i] - m_new)
        update = jnp.einsum("kqs,ksh->kqh", probs.astype(v.dtype), v[b, j], preferred_element_type=jnp.float32)
        return (
            acc.at[b, i].set(acc[b, i] * decay[..., None] + update),
            m.at[b, i].set(m_new),
            l.at[b, i].set(l[b, i] * decay + probs.sum(-1)),
        )

    zeros = jnp.zeros(q.shape[:-1], jnp.float32)
    start = jnp.zeros(q.shape, jnp.float32), zeros + _NEGATIVE, zeros
    acc, m, l = jax.lax.fori_loop(0, tiles.count, tile, start)
    sees_any = l > 0
    l = jnp.where(sees_any, l, 1.0)
    out = jnp.where(sees_any[..., None], acc / l[..., None], 0.0).astype(q.dtype)
    lse = jnp.where(sees_any, m + jnp.log(l), _NEGATIVE)
    return t.unfold_queries(out), t.unfold_scalars(lse)


def backward(
    q_BQNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_vis: mask.Visibility,
    k_vis: mask.Visibility,
    lse_BNQ: jax.Array,
    delta_BNQ: jax.Array,
    d_out_BQNH: jax.Array,
    block: int = BLOCK,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients (dq, dk, dv), all float32, of the part of attention that goes to these keys (interfaces.py).

    Args:
      lse_BNQ: over all keys of the queries, of which these may be a part.
      delta_BNQ: sum_H(d_out * out) of the final output.
    """
    t = _Tiling.of(q_BQNH, k_BSKH, block)
    q, k, v = t.fold_queries(q_BQNH) * t.scale, t.fold_keys(k_BSKH), t.fold_keys(v_BSKH)
    d_out = t.fold_queries(d_out_BQNH)
    lse, delta = t.fold_scalars(lse_BNQ), t.fold_scalars(delta_BNQ)
    tiles = _Tiles(t, q_vis, k_vis)
    f32 = {"preferred_element_type": jnp.float32}

    def tile(n, grads):
        dq, dk, dv = grads
        b, i, j, keep = tiles[n]
        qi, kj, vj, doi = q[b, i], k[b, j], v[b, j], d_out[b, i]
        scores = jnp.einsum("kqh,ksh->kqs", qi, kj, **f32)
        probs = jnp.where(keep, jnp.exp(scores - lse[b, i][..., None]), 0.0)
        d_probs = jnp.einsum("kqh,ksh->kqs", doi, vj, **f32)
        d_scores = (probs * (d_probs - delta[b, i][..., None])).astype(q.dtype)
        return (
            dq.at[b, i].add(jnp.einsum("kqs,ksh->kqh", d_scores, kj, **f32)),
            dk.at[b, j].add(jnp.einsum("kqs,kqh->ksh", d_scores, qi, **f32)),
            dv.at[b, j].add(jnp.einsum("kqs,kqh->ksh", probs.astype(q.dtype), doi, **f32)),
        )

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    dq, dk, dv = jax.lax.fori_loop(0, tiles.count, tile, start)
    return t.unfold_queries(dq) * t.H**-0.5, t.unfold_keys(dk), t.unfold_keys(dv)


class _Tiling(NamedTuple):
    """Splits arrays into blocks and joins them again. K kv heads, each with G query heads.

    queries [B, Q, K*G, H] <-> [B, nq, K, G*bq, H]: one matmul serves all queries of a kv head
    scalars [B, K*G, Q]    <-> [B, nq, K, G*bq]
    keys    [B, S, K, H]   <-> [B, nk, K, bk, H]
    """

    Q: int
    S: int
    K: int
    G: int
    H: int
    bq: int
    bk: int
    scale: jax.Array  # in q's dtype

    @classmethod
    def of(cls, q_BQNH: jax.Array, k_BSKH: jax.Array, block: int) -> "_Tiling":
        """Blocks of `block` tokens, or of Q or S tokens if these are fewer."""
        _, Q, N, H = q_BQNH.shape
        S, K = k_BSKH.shape[1:3]
        return cls(Q, S, K, N // K, H, min(block, Q), min(block, S), jnp.asarray(H**-0.5, q_BQNH.dtype))

    @property
    def nq(self) -> int:
        return -(-self.Q // self.bq)

    @property
    def nk(self) -> int:
        return -(-self.S // self.bk)

    def fold_queries(self, x):
        x = _pad(x, 1, self.nq * self.bq).reshape(x.shape[0], self.nq, self.bq, self.K, self.G, self.H)
        return x.transpose(0, 1, 3, 4, 2, 5).reshape(x.shape[0], self.nq, self.K, self.G * self.bq, self.H)

    def unfold_queries(self, x):
        x = x.reshape(x.shape[0], self.nq, self.K, self.G, self.bq, self.H).transpose(0, 1, 4, 2, 3, 5)
        return x.reshape(x.shape[0], self.nq * self.bq, self.K * self.G, self.H)[:, : self.Q]

    def fold_scalars(self, x):
        x = _pad(x, 2, self.nq * self.bq).reshape(x.shape[0], self.K, self.G, self.nq, self.bq)
        return x.transpose(0, 3, 1, 2, 4).reshape(x.shape[0], self.nq, self.K, self.G * self.bq)

    def unfold_scalars(self, x):
        x = x.reshape(x.shape[0], self.nq, self.K, self.G, self.bq).transpose(0, 2, 3, 1, 4)
        return x.reshape(x.shape[0], self.K * self.G, self.nq * self.bq)[:, :, : self.Q]

    def fold_keys(self, x):
        x = _pad(x, 1, self.nk * self.bk).reshape(x.shape[0], self.nk, self.bk, self.K, self.H)
        return x.transpose(0, 1, 3, 2, 4)

    def unfold_keys(self, x):
        x = x.transpose(0, 1, 3, 2, 4).reshape(x.shape[0], self.nk * self.bk, self.K, self.H)
        return x[:, : self.S]


def _pad(x: jax.Array, axis: int, to: int) -> jax.Array:
    return jnp.pad(x, [(0, to - n if a == axis else 0) for a, n in enumerate(x.shape)])


class _Tiles:
    """The tiles with an allowed pair by row and query block: `tiles[n]` is (row, query block, key block, mask)."""

    def __init__(self, t: _Tiling, q_vis: mask.Visibility, k_vis: mask.Visibility):
        q_vis, k_vis = mask.pad_queries(q_vis, t.nq * t.bq), mask.pad_keys(k_vis, t.nk * t.bk)
        work = mask.tile_classes(q_vis, k_vis, t.bq, t.bk) != mask.EMPTY
        self.count = jnp.sum(work)
        self._indices = jnp.nonzero(work, size=work.size, fill_value=0)
        self._group = t.G
        self._q_vis = jax.tree.map(lambda x: x.reshape(-1, t.nq, t.bq), q_vis)
        self._k_vis = jax.tree.map(lambda x: x.reshape(-1, t.nk, t.bk), k_vis)

    def __getitem__(self, n):
        b, i, j = (x[n] for x in self._indices)
        q_tile = jax.tree.map(lambda x: x[b, i], self._q_vis)
        k_tile = jax.tree.map(lambda x: x[b, j], self._k_vis)
        keep = jnp.tile(mask.allowed(q_tile, k_tile), (self._group, 1))  # bool[G*bq, bk], for all G query heads
        return b, i, j, keep
