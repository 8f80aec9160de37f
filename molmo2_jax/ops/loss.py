"""Weighted cross entropy and z-loss, in chunks of the positions that have loss.

No [S, V] array of logits ever exists: positions with weight move to the front, `chunk` of them at a time are multiplied
by the output embedding (the table), and the loop ends after the last one with weight. The backward pass computes the
logits of each chunk again. Both passes are written per device: rows and sequence are sharded over data, fsdp and
context, the vocabulary over tensor and context. Devices along `context` gather each other's positions chunk by chunk,
so that each holds and sums only its part of the table and of its gradient: positions are few next to the vocabulary.

    context 2    device 0 has x0, rows 0-3 of the table      device 1 has x1, rows 4-7
    logits       of x0 x1 with rows 0-3                      of x0 x1 with rows 4-7

    loss = sum(w * CE) / sum(w)  +  z * sum(w * logsumexp^2) / sum(w)      over the global batch
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding
from molmo2_jax.ops.gradient_reduction import scattered_sum

VOCAB = (sharding.TENSOR, sharding.CONTEXT)  # mesh axes that the vocabulary is sharded over here


class LossSums(NamedTuple):
    """float32 sums over all tokens of the global batch; divide by `weight` for means."""

    cross_entropy: jax.Array  # sum of w * CE, nats
    z: jax.Array  # sum of w * logsumexp^2
    weight: jax.Array  # sum of w
    correct: jax.Array  # sum of w where the target is the most likely token
    tokens: jax.Array  # number of tokens with w > 0


@jax.named_scope("loss")
def loss_sums(
    x_BSD: jax.Array,
    table_VD: jax.Array,
    axes: Sequence[str],
    targets_BS: jax.Array,
    weights_BS: jax.Array,
    *,
    chunk: int,
) -> LossSums:
    """Sums over the global batch of the losses of predicting targets from x @ table^T.

    Args:
      x_BSD: final hidden states in the compute dtype.
      table_VD: float32 output embedding, sharded as `sharding.stored(axes)`.
      weights_BS: float32, >= 0; a position with weight 0 costs nothing.
      chunk: positions per device whose logits exist at a time: context * chunk by V / (tensor * context) of them.
    """
    return _loss_sums(chunk, tuple(axes), x_BSD, table_VD, targets_BS, weights_BS)


def _over_mesh(f, chunk, axes, outs):
    ins = (sharding.B_S_D, sharding.stored(axes, 2), sharding.B_S, sharding.B_S, sharding.REPLICATED)
    return jax.shard_map(functools.partial(f, chunk), in_specs=ins, out_specs=outs, check_vma=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss_sums(chunk, axes, x, table, targets, weights):
    return _over_mesh(_local_sums, chunk, axes, sharding.REPLICATED)(x, table, targets, weights, None)


def _forward(chunk, axes, x, table, targets, weights):
    return _loss_sums(chunk, axes, x, table, targets, weights), (x, table, targets, weights)


def _backward(chunk, axes, residuals, d_sums: LossSums):
    x, table, targets, weights = residuals
    outs, scales = (sharding.B_S_D, sharding.stored(axes, 2)), (d_sums.cross_entropy, d_sums.z)
    dx, d_table = _over_mesh(_local_grads, chunk, axes, outs)(x, table, targets, weights, scales)
    return dx, d_table, None, None


_loss_sums.defvjp(_forward, _backward)


def _context_shard(table, dtype):
    """[V / tensor, D / fsdp] -> (its [rows, D] on this device along context, the token of each row; -1 for padding)."""
    V, shards = table.shape[0], jax.lax.axis_size(sharding.CONTEXT)
    rows = -(-V // shards)
    first = jax.lax.axis_index(sharding.CONTEXT) * rows
    table = jnp.pad(table.astype(dtype), ((0, rows * shards - V), (0, 0)))
    table = jax.lax.dynamic_slice_in_dim(table, first, rows)
    indices = first + jnp.arange(rows)
    tokens = jnp.where(indices < V, jax.lax.axis_index(sharding.TENSOR) * V + indices, -1)
    return jax.lax.all_gather(table, sharding.FSDP, axis=1, tiled=True), tokens


def _table_gradient(grad, V):
    """The transpose of `_context_shard`: sums gradients [rows, D] over all devices into [V / tensor, D / fsdp]."""
    # float32 until it is in the table's shards (ops/gradient_reduction.py has the reason).
    grad = scattered_sum(grad, P(None, sharding.FSDP), sharding.ROWS)
    return jax.lax.all_gather(grad, sharding.CONTEXT, axis=0, tiled=True)[:V]


def _supervised_first(chunk, x, targets, weights):
    """Positions with weight first, padded to chunks: (order, x, targets, weights, number of chunks with loss)."""
    T = weights.size
    padded = -(-T // chunk) * chunk
    (order,) = jnp.nonzero(weights.reshape(-1) > 0, size=padded, fill_value=T)
    flat = [x.reshape(T, -1), targets.reshape(-1), weights.reshape(-1)]
    x, targets, weights = (a.at[order].get(mode="fill", fill_value=0) for a in flat)
    # The same trip count on every device: the loop has collectives.
    chunks = jax.lax.pmax((jnp.sum(order < T) + chunk - 1) // chunk, sharding.TOKENS)
    return order, x, targets, weights, chunks


def _gather_chunk(n, chunk, *arrays):
    """Chunk n of all devices along context: [context * chunk, ...]."""
    local = (jax.lax.dynamic_slice_in_dim(a, n * chunk, chunk) for a in arrays)
    return [jax.lax.all_gather(a, sharding.CONTEXT, axis=0, tiled=True) for a in local]


def _chunk_logits(x, table, tokens, targets):
    """(float32 logits [c, rows], lse [c] and maximum [c] over the whole vocabulary, one-hot targets [c, rows])."""
    logits = jnp.einsum("cd,vd->cv", x, table, preferred_element_type=jnp.float32)
    logits = jnp.where(tokens < 0, -jnp.inf, logits)
    m = jax.lax.pmax(logits.max(-1), VOCAB)
    lse = m + jnp.log(jax.lax.psum(jnp.exp(logits - m[:, None]).sum(-1), VOCAB))
    return logits, lse, m, targets[:, None] == tokens


def _local_sums(chunk, x, table, targets, weights, _):
    table, tokens = _context_shard(table, x.dtype)
    _, x, t, w, chunks = _supervised_first(chunk, x, targets, weights)

    def body(n, sums):
        xn, tn, wn = _gather_chunk(n, chunk, x, t, w)
        logits, lse, m, hot = _chunk_logits(xn, table, tokens, tn)
        at_target = jax.lax.psum(jnp.where(hot, logits, 0.0).sum(-1), VOCAB)
        new = (lse - at_target, lse**2, jnp.ones_like(wn), at_target >= m)
        return LossSums(*(s + jnp.sum(wn * a) for s, a in zip(sums, new, strict=False)), sums[4] + jnp.sum(wn > 0))

    sums = jax.lax.fori_loop(0, chunks, body, LossSums(*[jnp.zeros((), jnp.float32)] * 5))
    return jax.tree.map(lambda s: jax.lax.psum(s, sharding.ROWS), sums)


def _local_grads(chunk, x_bsd, stored, targets, weights, scales):
    d_ce, d_z = scales
    table, tokens = _context_shard(stored, x_bsd.dtype)
    order, x, t, w, chunks = _supervised_first(chunk, x_bsd, targets, weights)

    def body(n, grads):
        dx, d_table = grads
        xn, tn, wn = _gather_chunk(n, chunk, x, t, w)
        logits, lse, _, hot = _chunk_logits(xn, table, tokens, tn)
        probs = jnp.exp(logits - lse[:, None])
        d_lse = wn * (d_ce + 2.0 * d_z * lse)
        d_logits = (d_lse[:, None] * probs - jnp.where(hot, (d_ce * wn)[:, None], 0.0)).astype(table.dtype)
        dxn = jnp.einsum("cv,vd->cd", d_logits, table, preferred_element_type=jnp.float32)
        dxn = jax.lax.psum(jax.lax.psum_scatter(dxn, sharding.CONTEXT, tiled=True), sharding.TENSOR)
        d_table += jnp.einsum("cv,cd->vd", d_logits, xn, preferred_element_type=jnp.float32)
        return jax.lax.dynamic_update_slice_in_dim(dx, dxn.astype(dx.dtype), n * chunk, 0), d_table

    dx, d_table = jax.lax.fori_loop(0, chunks, body, (jnp.zeros_like(x), jnp.zeros(table.shape, jnp.float32)))
    flat = jnp.zeros((weights.size, x.shape[-1]), x.dtype)
    dx = flat.at[order].set(dx, mode="drop").reshape(x_bsd.shape)
    return dx, _table_gradient(d_table, stored.shape[0])
