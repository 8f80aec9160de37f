"""Dropout: rates, independence of the masks, and the mean."""

import jax
import jax.numpy as jnp
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.models.layers import dropout, dropout_masks


def drawn(rates):
    """(x, masks, rates) of a row for each rate, on one device."""
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        x = jax.device_put(np.ones((len(rates), 64, 512), "f"), jax.NamedSharding(mesh, sharding.B_S_D))
        rate_BS = np.repeat(np.float32(rates), 64).reshape(-1, 64)
        rate_BS = jax.device_put(rate_BS, jax.NamedSharding(mesh, sharding.B_S))
        return x, dropout_masks(x, jax.random.key(0), rate_BS), rate_BS


def test_both_masks_drop_at_the_rate_of_each_token_and_are_independent():
    rates = np.array([0.0, 0.1, 0.5])
    _, (one, two), _ = drawn(rates)
    for mask in (one, two):
        np.testing.assert_allclose(1 - np.mean(mask, axis=(1, 2)), rates, atol=4 * 0.5 / np.sqrt(64 * 512))
    both = np.mean(~np.asarray(one) & ~np.asarray(two), axis=(1, 2))
    np.testing.assert_allclose(both, rates**2, atol=4 * 0.5 / np.sqrt(64 * 512))
    assert np.all(one[0]) and np.all(two[0])


def test_dropout_scales_the_rest_so_that_the_mean_stays():
    x, (kept, _), rate_BS = drawn([0.0, 0.1, 0.5])
    y = np.asarray(dropout(x, kept, rate_BS))
    assert (y[~np.asarray(kept)] == 0).all()
    np.testing.assert_allclose([np.unique(row)[-1] for row in y], [1, 1 / 0.9, 2], rtol=1e-6)
    np.testing.assert_allclose(y.mean((1, 2)), 1.0, atol=0.02)
    assert dropout(jnp.bfloat16(x), kept, rate_BS).dtype == jnp.bfloat16
