import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from molmo2_jax import sharding
from molmo2_jax.generate.sampling import nucleus, sample

V = 9
WEIGHTS = [1, 5, 3, 0, 5, 2, 3, 1, 0]  # of 20; two pairs of likely tokens are tied

# Compiled once; top_p is traced here, so that one program serves every example.
kept = jax.jit(nucleus)
draws = jax.jit(jax.vmap(sample, in_axes=(None, 0, None, None)), static_argnums=(2, 3))


def logits_of(weights):
    return jnp.log(jnp.array([weights], jnp.float32))


def smallest_set(weights, reach):
    """Most likely ids first, until their integer weights reach `reach`; tokens of weight 0 are never needed."""
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    for n in range(1, len(order) + 1):
        if sum(weights[i] for i in order[:n]) >= reach:
            return order[:n]


@given(weights=st.lists(st.integers(0, 6), min_size=V, max_size=V).filter(any), share=st.floats(0, 1, exclude_max=True))
@example(weights=[1] * V, share=0.5)  # all tied
@example(weights=[0] * 8 + [3], share=0.0)
@example(weights=WEIGHTS, share=0.999)
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(weights, share):
    total = sum(weights)
    units = math.floor(share * total)  # top_p is between units and units + 1 of the total: rounding cannot matter
    logits, tokens = kept(logits_of(weights), (units + 0.5) / total)
    inside = np.asarray(tokens[0])[np.isfinite(logits[0])]
    assert inside.tolist() == smallest_set(weights, units + 0.5)
    assert sorted(tokens[0].tolist()) == list(range(V))
    np.testing.assert_array_equal(logits[0, : len(inside)], logits_of(weights)[0, inside])


def test_the_documented_example():
    logits, tokens = kept(jnp.log(jnp.array([[0.05, 0.5, 0.15, 0.3]])), 0.7)
    np.testing.assert_allclose(np.exp(logits[0]), [0.5, 0.3, 0, 0], atol=1e-6)
    assert tokens[0].tolist() == [1, 3, 2, 0]


def test_temperature_0_takes_the_most_likely_token_of_each_row():
    logits = jax.random.normal(jax.random.key(0), (5, V))
    for top_p in (1.0, 0.3):
        np.testing.assert_array_equal(sample(logits, jax.random.key(1), 0.0, top_p), np.argmax(logits, axis=-1))


@functools.cache
def frequencies(temperature, top_p, n=20_000):
    """How often each token is drawn."""
    tokens = draws(logits_of(WEIGHTS), jax.random.split(jax.random.key(7), n), temperature, top_p)
    assert tokens.dtype == jnp.int32
    return np.bincount(np.asarray(tokens[:, 0]), minlength=V) / n


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, top_p):
    powers = np.array(WEIGHTS, float) ** (1 / temperature)
    probabilities = powers / powers.sum()
    if top_p < 1:
        order = np.argsort(-probabilities, kind="stable")
        n = 1 + np.flatnonzero(np.cumsum(probabilities[order]) >= top_p)[0]
        probabilities[order[n:]] = 0
        probabilities /= probabilities.sum()
    found = frequencies(temperature, top_p)
    assert (found[probabilities == 0] == 0).all()
    # Four standard deviations of 20,000 draws; the seed is fixed.
    np.testing.assert_array_less(np.abs(found - probabilities), 4 * np.sqrt(0.25 / 20_000))


def test_top_p_1_is_the_whole_distribution():
    logits, key = jax.random.normal(jax.random.key(2), (64, V)), jax.random.key(3)
    expected = jax.random.categorical(key, logits / 0.7, axis=-1)
    np.testing.assert_array_equal(sample(logits, key, 0.7, 1.0), expected)


def test_a_tiny_top_p_is_greedy():
    logits = jax.random.normal(jax.random.key(4), (64, V))
    np.testing.assert_array_equal(sample(logits, jax.random.key(5), 1.0, 1e-9), np.argmax(logits, axis=-1))


def test_rows_may_be_sharded_over_devices():
    logits = jax.random.normal(jax.random.key(2), (8, V))
    expected = sample(logits, jax.random.key(3), 1.0, 0.8)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "context": 1, "tensor": 2})
    with jax.set_mesh(mesh):
        sharded = jax.device_put(logits, jax.NamedSharding(mesh, jax.P(sharding.ROWS, None)))
        np.testing.assert_array_equal(sample(sharded, jax.random.key(3), 1.0, 0.8), expected)


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(-0.1, 1.0), (math.nan, 1.0), (1.0, 0.0), (1.0, 1.1), (1.0, -1.0), (1.0, math.nan)]
)
def test_impossible_values_are_refused(temperature, top_p):
    with pytest.raises(ValueError, match="temperature is at least 0 and top_p in"):
        sample(logits_of(WEIGHTS), jax.random.key(0), temperature, top_p)
