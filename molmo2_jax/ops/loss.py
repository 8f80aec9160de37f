"""Weighted cross entropy and z-loss, in chunks of the positions that carry loss.

No [S, V] array of logits ever exists: positions with weight are moved to the front, `chunk` of them at a time meet the
whole vocabulary, and the loop ends with the last one that carries weight. The backward pass computes each chunk's
logits again. Both passes are written per device: rows and sequence are cut over data, fsdp and context, the vocabulary
over tensor.

    loss = sum(w * CE) / sum(w)  +  z * sum(w * logsumexp^2) / sum(w)      over the global batch
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from molmo2_jax import sharding
from molmo2_jax.ops.linear import scattered_sum


class LossSums(NamedTuple):
    """float32 sums over all tokens of the global batch; divide by `weight` for means."""

    cross_entropy: jax.Array  # sum of w * CE, nats
    z: jax.Array  # sum of w * logsumexp^2
    weight: jax.Array  # sum of w
    correct: jax.Array  # sum of w where the target is the most likely token
    tokens: jax.Array  # number of tokens with w > 0


def loss_sums(x_BSD, table_VD, axes, targets_BS, weights_BS, *, chunk: int) -> LossSums:
    """Sums over the global batch of the losses of predicting targets from x @ table^T.

    Args:
      x_BSD: final hidden states in the compute dtype.
      table_VD: float32 output embedding, stored as `sharding.stored(axes)`.
      weights_BS: float32, >= 0; a position with weight 0 costs nothing.
      chunk: positions whose logits exist at a time, per device.
    """
    return _loss_sums(chunk, tuple(axes), x_BSD, table_VD, targets_BS, weights_BS)


def _mapped(f, chunk, outs):
    ins = (sharding.B_S_D, sharding.V_D, sharding.B_S, sharding.B_S, sharding.WHOLE)
    return jax.shard_map(functools.partial(f, chunk), in_specs=ins, out_specs=outs, check_vma=False)


def _gather(table, axes, dtype):
    return jax.sharding.reshard(table.astype(dtype), sharding.gathered(axes))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss_sums(chunk, axes, x, table, targets, weights):
    return _mapped(_local_sums, chunk, sharding.WHOLE)(x, _gather(table, axes, x.dtype), targets, weights, None)


def _forward(chunk, axes, x, table, targets, weights):
    return _loss_sums(chunk, axes, x, table, targets, weights), (x, table, targets, weights)


def _backward(chunk, axes, residuals, d_sums: LossSums):
    x, table, targets, weights = residuals
    scales, stored = (d_sums.cross_entropy, d_sums.z), jax.typeof(table).sharding.spec
    mapped = _mapped(functools.partial(_local_grads, stored), chunk, (sharding.B_S_D, stored))
    dx, d_table = mapped(x, _gather(table, axes, x.dtype), targets, weights, scales)
    return dx, d_table, None, None


_loss_sums.defvjp(_forward, _backward)


def _compact(chunk, x, targets, weights):
    """Positions with weight first: (order, x, targets, weights, number of chunks that carry loss), padded to chunks."""
    T = weights.size
    padded = -(-T // chunk) * chunk
    (order,) = jnp.nonzero(weights.reshape(-1) > 0, size=padded, fill_value=T)
    flat = [x.reshape(T, -1), targets.reshape(-1), weights.reshape(-1)]
    x, targets, weights = (a.at[order].get(mode="fill", fill_value=0) for a in flat)
    chunks = (jnp.sum(order < T) + chunk - 1) // chunk
    return order, x, targets, weights, chunks


def _take(n, chunk, *arrays):
    return [jax.lax.dynamic_slice_in_dim(a, n * chunk, chunk) for a in arrays]


def _chunk_logits(x, table, targets):
    """Logits [c, V/tensor] float32, their log sum exp [c] over the whole vocabulary, and the one-hot targets."""
    logits = jnp.einsum("cd,vd->cv", x, table, preferred_element_type=jnp.float32)
    first = jax.lax.axis_index(sharding.TENSOR) * table.shape[0]
    hot = targets[:, None] == first + jnp.arange(table.shape[0])[None]
    high = jax.lax.pmax(logits.max(-1), sharding.TENSOR)
    log_sum = high + jnp.log(jax.lax.psum(jnp.exp(logits - high[:, None]).sum(-1), sharding.TENSOR))
    return logits, log_sum, high, hot


def _local_sums(chunk, x, table, targets, weights, _):
    _, x, t, w, chunks = _compact(chunk, x, targets, weights)

    def body(n, sums):
        xn, tn, wn = _take(n, chunk, x, t, w)
        logits, log_sum, high, hot = _chunk_logits(xn, table, tn)
        at_target = jax.lax.psum(jnp.where(hot, logits, 0.0).sum(-1), sharding.TENSOR)
        new = (log_sum - at_target, log_sum**2, jnp.ones_like(wn), at_target >= high)
        return LossSums(*(s + jnp.sum(wn * a) for s, a in zip(sums, new, strict=False)), sums[4] + jnp.sum(wn > 0))

    sums = jax.lax.fori_loop(0, chunks, body, LossSums(*[jnp.zeros((), jnp.float32)] * 5))
    return jax.tree.map(lambda s: jax.lax.psum(s, sharding.TOKENS), sums)


def _local_grads(stored, chunk, x_bsd, table, targets, weights, scales):
    d_ce, d_z = scales
    order, x, t, w, chunks = _compact(chunk, x_bsd, targets, weights)

    def body(n, grads):
        dx, d_table = grads
        xn, tn, wn = _take(n, chunk, x, t, w)
        logits, log_sum, _, hot = _chunk_logits(xn, table, tn)
        probs = jnp.exp(logits - log_sum[:, None])
        slope = wn * (d_ce + 2.0 * d_z * log_sum)  # d loss / d logsumexp
        d_logits = (slope[:, None] * probs - jnp.where(hot, (d_ce * wn)[:, None], 0.0)).astype(table.dtype)
        dxn = jnp.einsum("cv,vd->cd", d_logits, table, preferred_element_type=jnp.float32)
        dxn = jax.lax.psum(dxn, sharding.TENSOR)
        d_table += jnp.einsum("cv,cd->vd", d_logits, xn, preferred_element_type=jnp.float32)
        return jax.lax.dynamic_update_slice_in_dim(dx, dxn.astype(dx.dtype), n * chunk, 0), d_table

    dx, d_table = jax.lax.fori_loop(0, chunks, body, (jnp.zeros_like(x), jnp.zeros(table.shape, jnp.float32)))
    flat = jnp.zeros((weights.size, x.shape[-1]), x.dtype)
    dx = flat.at[order].set(dx, mode="drop").reshape(x_bsd.shape)
    # float32 until it lies in the table's own shards (ops/linear.py has the reason).
    return dx, scattered_sum(d_table, stored)
