"""Attention tile by tile in plain JAX: O(S) memory, own backward, and empty tiles cost nothing. Runs on any device.

The tiles that hold at least one allowed pair are listed first (`mask.tile_classes`), then one loop walks the list; a
tile of `block` queries and `block` keys of one row updates that query block's running softmax. The trip count is the
length of the list, so a row that is mostly masked is mostly free. The backward pass walks the same list with five
matmuls a tile (Dao et al., FlashAttention-2, arXiv 2307.08691).
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from molmo2_jax.ops import mask

_NEGATIVE = -1e30  # finite, so that a tile with a fully masked query makes no NaN

BLOCK = 256  # measured in benchmarks/attention.py on CPU: 128 and 512 are slower


def blockwise_attention(
    q_BQNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_vis: mask.Visibility,
    k_vis: mask.Visibility,
    block: int = BLOCK,
) -> jax.Array:
    """As dense_attention, tile by tile. Any Q and S; tiles are `block` x `block` (or smaller, when Q or S is)."""
    B, Q, N, H = q_BQNH.shape
    S, K = k_BSKH.shape[1:3]
    bq, bk = min(block, Q), min(block, S)
    nq, nk = -(-Q // bq), -(-S // bk)

    def fold(x, n, size):  # [B, S, K*G, H] -> [B, n, K, G*size, H]: one matmul serves all queries of a kv head
        x = jnp.pad(x, ((0, 0), (0, n * size - x.shape[1]), (0, 0), (0, 0)))
        x = x.reshape(B, n, size, K, -1, H).transpose(0, 1, 3, 4, 2, 5)
        return x.reshape(B, n, K, -1, H)

    q_vis, k_vis = mask.pad_queries(q_vis, nq * bq), mask.pad_keys(k_vis, nk * bk)
    out = _tiles(
        fold(q_BQNH * jnp.asarray(H**-0.5, q_BQNH.dtype), nq, bq),
        fold(k_BSKH, nk, bk),
        fold(v_BSKH, nk, bk),
        jax.tree.map(lambda x: x.reshape(B, nq, bq), q_vis),
        jax.tree.map(lambda x: x.reshape(B, nk, bk), k_vis),
    )
    out = out.reshape(B, nq, K, N // K, bq, H).transpose(0, 1, 4, 2, 3, 5)
    return out.reshape(B, nq * bq, N, H)[:, :Q]


def _tile_list(q_vis, k_vis):
    """(count, row, query block, key block): the tiles with work, sorted by row and query block."""
    flat = [jax.tree.map(lambda x: x.reshape(x.shape[0], -1), v) for v in (q_vis, k_vis)]
    classes = mask.tile_classes(*flat, q_vis.index.shape[-1], k_vis.index.shape[-1])
    rows, qs, ks = jnp.nonzero(classes != mask.EMPTY, size=classes.size, fill_value=0)
    return jnp.sum(classes != mask.EMPTY), rows, qs, ks


def _tile_mask(q_vis, k_vis, b, i, j, group):
    """bool[G*bq, bk] of tile (i, j) of row b, repeated for the G query heads of a kv head."""
    q_tile, k_tile = (jax.tree.map(lambda x, at=at: x[b, at], vis) for vis, at in ((q_vis, i), (k_vis, j)))
    allowed = mask.allowed(q_tile, k_tile)
    return jnp.tile(allowed, (group, 1))


@jax.custom_vjp
def _tiles(q, k, v, q_vis, k_vis):
    """q [B, nq, K, G*bq, H] (scaled), k and v [B, nk, K, bk, H] -> [B, nq, K, G*bq, H] in q's dtype."""
    return _forward(q, k, v, q_vis, k_vis)[0]


def _forward(q, k, v, q_vis, k_vis):
    count, rows, qs, ks = _tile_list(q_vis, k_vis)
    group = q.shape[3] // q_vis.index.shape[-1]
    total = jnp.zeros(q.shape, jnp.float32)
    high = jnp.full(q.shape[:-1], _NEGATIVE, jnp.float32)
    weight = jnp.zeros(q.shape[:-1], jnp.float32)

    def tile(n, carry):
        total, high, weight = carry
        b, i, j = rows[n], qs[n], ks[n]
        keep = _tile_mask(q_vis, k_vis, b, i, j, group)
        scores = jnp.einsum("kqh,ksh->kqs", q[b, i], k[b, j], preferred_element_type=jnp.float32)
        scores = jnp.where(keep, scores, _NEGATIVE)
        high_new = jnp.maximum(high[b, i], scores.max(-1))
        probs = jnp.where(keep, jnp.exp(scores - high_new[..., None]), 0.0)
        decay = jnp.exp(high[b, i] - high_new)
        update = jnp.einsum("kqs,ksh->kqh", probs.astype(v.dtype), v[b, j], preferred_element_type=jnp.float32)
        return (
            total.at[b, i].set(total[b, i] * decay[..., None] + update),
            high.at[b, i].set(high_new),
            weight.at[b, i].set(weight[b, i] * decay + probs.sum(-1)),
        )

    total, high, weight = jax.lax.fori_loop(0, count, tile, (total, high, weight))
    seen = weight > 0
    out = jnp.where(seen[..., None], total / jnp.where(seen, weight, 1.0)[..., None], 0.0).astype(q.dtype)
    log_sum = jnp.where(seen, high + jnp.log(jnp.where(seen, weight, 1.0)), 0.0)
    out, log_sum = checkpoint_name((out, log_sum), "attention")  # what models.layers.REMAT["dots"] keeps
    return out, (q, k, v, q_vis, k_vis, out, log_sum)


def _backward(residuals, d_out):
    q, k, v, q_vis, k_vis, out, log_sum = residuals
    count, rows, qs, ks = _tile_list(q_vis, k_vis)
    group = q.shape[3] // q_vis.index.shape[-1]
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), -1)
    grads = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))

    def tile(n, grads):
        dq, dk, dv = grads
        b, i, j = rows[n], qs[n], ks[n]
        qi, kj, vj, doi = q[b, i], k[b, j], v[b, j], d_out[b, i]
        keep = _tile_mask(q_vis, k_vis, b, i, j, group)
        scores = jnp.einsum("kqh,ksh->kqs", qi, kj, preferred_element_type=jnp.float32)
        probs = jnp.where(keep, jnp.exp(scores - log_sum[b, i][..., None]), 0.0)
        d_probs = jnp.einsum("kqh,ksh->kqs", doi, vj, preferred_element_type=jnp.float32)
        d_scores = (probs * (d_probs - delta[b, i][..., None])).astype(q.dtype)
        f32 = {"preferred_element_type": jnp.float32}
        return (
            dq.at[b, i].add(jnp.einsum("kqs,ksh->kqh", d_scores, kj, **f32)),
            dk.at[b, j].add(jnp.einsum("kqs,kqh->ksh", d_scores, qi, **f32)),
            dv.at[b, j].add(jnp.einsum("kqs,kqh->ksh", probs.astype(q.dtype), doi, **f32)),
        )

    dq, dk, dv = jax.lax.fori_loop(0, count, tile, grads)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None, None


_tiles.defvjp(_forward, _backward)
