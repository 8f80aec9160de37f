"""Choosing the next token from logits."""

import jax
import jax.numpy as jnp


def sample(logits_BV: jax.Array, key: jax.Array, temperature: float, top_p: float) -> jax.Array:
    """int32[B]: the most likely token if temperature is 0, else a draw from the nucleus.

    Raises:
      ValueError: temperature < 0 or top_p outside (0, 1].
    """
    if not temperature >= 0 or not 0 < top_p <= 1:  # NaN is neither
        raise ValueError(f"temperature is at least 0 and top_p in (0, 1], not {temperature} and {top_p}")
    if temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / temperature
    if top_p == 1:
        return jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)
    sorted_BV, tokens_BV = nucleus(logits_BV, top_p)
    drawn_B1 = jax.random.categorical(key, sorted_BV, axis=-1)[:, None]
    rank_BV = jax.lax.broadcasted_iota(jnp.int32, tokens_BV.shape, 1)
    return jnp.where(rank_BV == drawn_B1, tokens_BV, 0).sum(axis=-1)


def nucleus(logits_BV: jax.Array, top_p: float) -> tuple[jax.Array, jax.Array]:
    """The smallest set of most likely tokens whose probability reaches `top_p` (arXiv 1904.09751).

        probabilities .05 .5 .15 .3   top_p .7  ->  .5 .3 0 0   tokens 1 3 2 0

    Returns:
      Logits in descending order, -inf outside the set, and their tokens. Of equally likely tokens, the one with the
      smaller id comes first.
    """
    ids_BV = jax.lax.broadcasted_iota(jnp.int32, logits_BV.shape, 1, out_sharding=jax.typeof(logits_BV).sharding)
    negated_BV, tokens_BV = jax.lax.sort_key_val(-logits_BV, ids_BV)
    probs_BV = jax.nn.softmax(-negated_BV, axis=-1)
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
    return jnp.where(before_BV < top_p, -negated_BV, -jnp.inf), tokens_BV
