"""Visibility: which token may attend to which, from three integers per token. The only mask rule of this repository.

    allowed(q, k) =  k.index <= q.index < k.until   or   q.group == k.group != 0

A key is visible from its own index to the end of its subtree; the tokens of one image group see each other in both
directions. A row with two visual tokens (v), two branches (A, B) and a second packed example (C):

    token   r v v A A B C C
    until   6 6 6 5 5 6 8 8
    group   0 1 1 0 0 0 0 0

    query r   1 . . . . . . .
          v   1 1 1 . . . . .      v v see each other
          v   1 1 1 . . . . .
          A   1 1 1 1 . . . .
          A   1 1 1 1 1 . . .
          B   1 1 1 . . 1 . .      B does not see A
          C   . . . . . . 1 .      C does not see the first example
          C   . . . . . . 1 1

This is the reference's causal / image-bidirectional / subsegment mask (molmo2.py:611-676) for its trees of depth one,
extended to any depth.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from molmo2_jax import sharding
from molmo2_jax.ops.attention.token_order import row_index

EMPTY, PARTIAL, FULL = 0, 1, 2  # classes of a tile: skip it, apply the mask, no mask needed

_FAR = jnp.iinfo(jnp.int32).max


class Visibility(NamedTuple):
    """Three integers per token, each int32[..., S]."""

    index: jax.Array
    until: jax.Array
    group: jax.Array


def row_visibility(
    visible_until_BS: jax.Array, image_group_BS: jax.Array, token_order: str = "contiguous"
) -> Visibility:
    """Visibility of whole rows, int32[B, S] each: `index` is the token's index in the row.

    `token_order`: how the rows are arranged on the mesh in use (ops/attention/token_order.py).
    """
    S = visible_until_BS.shape[1]
    index_BS = jax.lax.broadcasted_iota(jnp.int32, visible_until_BS.shape, 1)
    index_BS = index_BS + 0 * visible_until_BS  # takes the sharding of the row
    if token_order != "contiguous":
        shards = jax.sharding.get_abstract_mesh().shape[sharding.CONTEXT]
        index_BS = row_index(token_order, index_BS, S, shards)
    return Visibility(index_BS, visible_until_BS, image_group_BS)


def allowed(q: Visibility, k: Visibility) -> jax.Array:
    """bool[..., Q, K]: may query q attend to key k? Fields are int32[..., Q] and int32[..., K]."""
    queries = (x[..., :, None] for x in query_fields(q))
    return visible(*queries, *(x[..., None, :] for x in k))


def query_fields(q: Visibility) -> tuple[jax.Array, jax.Array]:
    """(index, group) of queries as `visible` expects them: group 0 becomes -1, which no key has."""
    return q.index, jnp.where(q.group == 0, -1, q.group)


def visible(
    q_index: jax.Array, q_group: jax.Array, k_index: jax.Array, k_until: jax.Array, k_group: jax.Array
) -> jax.Array:
    """The rule itself. The fields broadcast against each other: a kernel puts tokens along rows or along columns."""
    return (k_index <= q_index) & (q_index < k_until) | (q_group == k_group)


def pad_queries(q: Visibility, to: int) -> Visibility:
    """Pads queries [..., S] to [..., to] with queries that see nothing."""
    pad = [(0, 0)] * (q.index.ndim - 1) + [(0, to - q.index.shape[-1])]
    return Visibility(jnp.pad(q.index, pad, constant_values=_FAR), jnp.pad(q.until, pad), jnp.pad(q.group, pad))


pad_keys = pad_queries  # index = _FAR and until = 0: no query is in [_FAR, 0)


def tile_classes(q: Visibility, k: Visibility, block_q: int, block_k: int) -> jax.Array:
    """int32[..., Q/block_q, K/block_k] of EMPTY, PARTIAL or FULL, from minima and maxima of each block alone.

    EMPTY is exact for the rows of the packer (depth first, groups numbered in row order): a tile is EMPTY if and only
    if it has no allowed pair. FULL is never wrong, but a tile that is full by a mix of both rules may be PARTIAL.
    Q and K must be multiples of the block sizes (pad_queries, pad_keys).
    """

    def blocks(x, size):
        return x.reshape(*x.shape[:-1], x.shape[-1] // size, size)

    def min_max(x, size):
        x = blocks(x, size)
        return x.min(-1), x.max(-1)

    def column(pair):
        return tuple(x[..., :, None] for x in pair)

    def row(pair):
        return tuple(x[..., None, :] for x in pair)

    q_min, q_max = column(min_max(q.index, block_q))
    k_min, k_max = row(min_max(k.index, block_k))
    until_min, until_max = row(min_max(k.until, block_k))
    q_group_min, q_group_max = column(min_max(q.group, block_q))
    k_group_min, k_group_max = row(min_max(k.group, block_k))
    # Smallest real group: 0 means "no group" and must not extend the range.
    q_real_min = column(min_max(jnp.where(q.group == 0, _FAR, q.group), block_q))[0]
    k_real_min = row(min_max(jnp.where(k.group == 0, _FAR, k.group), block_k))[0]

    some_subtree = (k_min <= q_max) & (q_min < until_max)
    some_group = (q_real_min <= k_group_max) & (k_real_min <= q_group_max)
    all_subtree = (k_max <= q_min) & (q_max < until_min)
    one_group = (
        (q_group_min == q_group_max) & (k_group_min == k_group_max) & (q_group_min == k_group_min) & (q_group_min != 0)
    )
    return jnp.where(all_subtree | one_group, FULL, jnp.where(some_subtree | some_group, PARTIAL, EMPTY))
