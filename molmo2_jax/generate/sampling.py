"""Choosing the next token from logits."""

import jax
import jax.numpy as jnp


def sample(logits_BV: jax.Array, key: jax.Array, temperature: float, top_p: float) -> jax.Array:
    """int32[B]: the most likely token where temperature is 0, else a draw from the nucleus.

    The nucleus is the smallest set of most likely tokens whose probability reaches `top_p` (arXiv 1904.09751).

        probabilities .5 .3 .15 .05   top_p .7  ->  draws from the first two

    Raises:
      ValueError: temperature < 0 or top_p outside (0, 1].
    """
    if temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(f"temperature is at least 0 and top_p in (0, 1], not {temperature} and {top_p}")
    if temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = logits_BV / temperature
    if top_p < 1:
        sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        before_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, axis=-1), axis=-1) - jax.nn.softmax(sorted_BV, axis=-1)
        least_B1 = jnp.min(jnp.where(before_BV < top_p, sorted_BV, jnp.inf), axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
    return jax.random.categorical(key, logits_BV, axis=-1).astype(jnp.int32)
