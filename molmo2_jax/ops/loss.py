"""Weighted cross entropy and z-loss, in chunks of the positions that carry loss.

No [S, V] array of logits ever exists: positions with weight are moved to the front, `chunk` of them at a time meet the
vocabulary, and the loop ends with the last one that carries weight. The backward pass computes each chunk's logits
again. Both passes are written per device: rows and sequence are cut over data, fsdp and context, the vocabulary over
tensor and context. Devices along `context` share their positions chunk by chunk, so that each holds and sums only its
part of the table and of its gradient: positions are few beside the vocabulary.

    context 2    device 0 has x0, rows 0-3 of the table      device 1 has x1, rows 4-7
    logits       of x0 x1 by rows 0-3                        of x0 x1 by rows 4-7

    loss = sum(w * CE) / sum(w)  +  z * sum(w * logsumexp^2) / sum(w)      over the global batch
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding
from molmo2_jax.ops.linear import scattered_sum

VOCAB = (sharding.TENSOR, sharding.CONTEXT)  # mesh axes that cut the vocabulary here


class LossSums(NamedTuple):
    """float32 sums over all tokens of the global batch; divide by `weight` for means."""

    cross_entropy: jax.Array  # sum of w * CE, nats
    z: jax.Array  # sum of w * logsumexp^2
    weight: jax.Array  # sum of w
    correct: jax.Array  # sum of w where the target is the most likely token
    tokens: jax.Array  # number of tokens with w > 0


@jax.named_scope("loss")
def loss_sums(x_BSD, table_VD, axes, targets_BS, weights_BS, *, chunk: int) -> LossSums:
    """Sums over the global batch of the losses of predicting targets from x @ table^T.

    Args:
      x_BSD: final hidden states in the compute dtype.
      table_VD: float32 output embedding, stored as `sharding.stored(axes)`.
      weights_BS: float32, >= 0; a position with weight 0 costs nothing.
      chunk: positions of each device whose logits exist at a time: context * chunk by V / (tensor * context).
    """
    return _loss_sums(chunk, tuple(axes), x_BSD, table_VD, targets_BS, weights_BS)


def _mapped(f, chunk, axes, outs):
    ins = (sharding.B_S_D, sharding.stored(axes, 2), sharding.B_S, sharding.B_S, sharding.REPLICATED)
    return jax.shard_map(functools.partial(f, chunk), in_specs=ins, out_specs=outs, check_vma=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss_sums(chunk, axes, x, table, targets, weights):
    return _mapped(_local_sums, chunk, axes, sharding.REPLICATED)(x, table, targets, weights, None)


def _forward(chunk, axes, x, table, targets, weights):
    return _loss_sums(chunk, axes, x, table, targets, weights), (x, table, targets, weights)


def _backward(chunk, axes, residuals, d_sums: LossSums):
    x, table, targets, weights = residuals
    outs, scales = (sharding.B_S_D, sharding.stored(axes, 2)), (d_sums.cross_entropy, d_sums.z)
    dx, d_table = _mapped(_local_grads, chunk, axes, outs)(x, table, targets, weights, scales)
    return dx, d_table, None, None


_loss_sums.defvjp(_forward, _backward)


def _own_rows(table, dtype):
    """This device's rows of its table [V / tensor, D / fsdp], all D: (table, their tokens; -1 of rows that pad)."""
    V, ways = table.shape[0], jax.lax.axis_size(sharding.CONTEXT)
    rows = -(-V // ways)
    first = jax.lax.axis_index(sharding.CONTEXT) * rows
    table = jnp.pad(table.astype(dtype), ((0, rows * ways - V), (0, 0)))
    table = jax.lax.dynamic_slice_in_dim(table, first, rows)
    numbers = first + jnp.arange(rows)
    tokens = jnp.where(numbers < V, jax.lax.axis_index(sharding.TENSOR) * V + numbers, -1)
    return jax.lax.all_gather(table, sharding.FSDP, axis=1, tiled=True), tokens


def _own_gradient(grad, V):
    """The inverse: the sum over all devices of gradients [rows, D] as [V / tensor, D / fsdp]."""
    # float32 until it lies in the table's own shards (ops/linear.py has the reason).
    grad = scattered_sum(grad, P(None, sharding.FSDP), sharding.ROWS)
    return jax.lax.all_gather(grad, sharding.CONTEXT, axis=0, tiled=True)[:V]


def _compact(chunk, x, targets, weights):
    """Positions with weight first: (order, x, targets, weights, number of chunks that carry loss), padded to chunks."""
    T = weights.size
    padded = -(-T // chunk) * chunk
    (order,) = jnp.nonzero(weights.reshape(-1) > 0, size=padded, fill_value=T)
    flat = [x.reshape(T, -1), targets.reshape(-1), weights.reshape(-1)]
    x, targets, weights = (a.at[order].get(mode="fill", fill_value=0) for a in flat)
    # As many turns on every device: there are collectives inside.
    chunks = jax.lax.pmax((jnp.sum(order < T) + chunk - 1) // chunk, sharding.TOKENS)
    return order, x, targets, weights, chunks


def _take(n, chunk, *arrays):
    """Chunk n of all devices along context: [context * chunk, ...]."""
    own = (jax.lax.dynamic_slice_in_dim(a, n * chunk, chunk) for a in arrays)
    return [jax.lax.all_gather(a, sharding.CONTEXT, axis=0, tiled=True) for a in own]


def _chunk_logits(x, table, tokens, targets):
    """Logits [c, rows] float32, their log sum exp [c] over the whole vocabulary, and the one-hot targets."""
    logits = jnp.einsum("cd,vd->cv", x, table, preferred_element_type=jnp.float32)
    logits = jnp.where(tokens < 0, -jnp.inf, logits)
    high = jax.lax.pmax(logits.max(-1), VOCAB)
    log_sum = high + jnp.log(jax.lax.psum(jnp.exp(logits - high[:, None]).sum(-1), VOCAB))
    return logits, log_sum, high, targets[:, None] == tokens


def _local_sums(chunk, x, table, targets, weights, _):
    table, tokens = _own_rows(table, x.dtype)
    _, x, t, w, chunks = _compact(chunk, x, targets, weights)

    def body(n, sums):
        xn, tn, wn = _take(n, chunk, x, t, w)
        logits, log_sum, high, hot = _chunk_logits(xn, table, tokens, tn)
        at_target = jax.lax.psum(jnp.where(hot, logits, 0.0).sum(-1), VOCAB)
        new = (log_sum - at_target, log_sum**2, jnp.ones_like(wn), at_target >= high)
        return LossSums(*(s + jnp.sum(wn * a) for s, a in zip(sums, new, strict=False)), sums[4] + jnp.sum(wn > 0))

    sums = jax.lax.fori_loop(0, chunks, body, LossSums(*[jnp.zeros((), jnp.float32)] * 5))
    return jax.tree.map(lambda s: jax.lax.psum(s, sharding.ROWS), sums)


def _local_grads(chunk, x_bsd, stored, targets, weights, scales):
    d_ce, d_z = scales
    table, tokens = _own_rows(stored, x_bsd.dtype)
    order, x, t, w, chunks = _compact(chunk, x_bsd, targets, weights)

    def body(n, grads):
        dx, d_table = grads
        xn, tn, wn = _take(n, chunk, x, t, w)
        logits, log_sum, _, hot = _chunk_logits(xn, table, tokens, tn)
        probs = jnp.exp(logits - log_sum[:, None])
        slope = wn * (d_ce + 2.0 * d_z * log_sum)  # d loss / d logsumexp
        d_logits = (slope[:, None] * probs - jnp.where(hot, (d_ce * wn)[:, None], 0.0)).astype(table.dtype)
        dxn = jnp.einsum("cv,vd->cd", d_logits, table, preferred_element_type=jnp.float32)
        dxn = jax.lax.psum(jax.lax.psum_scatter(dxn, sharding.CONTEXT, tiled=True), sharding.TENSOR)
        d_table += jnp.einsum("cv,cd->vd", d_logits, xn, preferred_element_type=jnp.float32)
        return jax.lax.dynamic_update_slice_in_dim(dx, dxn.astype(dx.dtype), n * chunk, 0), d_table

    dx, d_table = jax.lax.fori_loop(0, chunks, body, (jnp.zeros_like(x), jnp.zeros(table.shape, jnp.float32)))
    flat = jnp.zeros((weights.size, x.shape[-1]), x.dtype)
    dx = flat.at[order].set(dx, mode="drop").reshape(x_bsd.shape)
    return dx, _own_gradient(d_table, stored.shape[0])
