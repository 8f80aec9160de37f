"""Rotary positions and YaRN."""

import jax.numpy as jnp
import numpy as np
import pytest

from molmo2_jax.ops import rope

OLMO3 = rope.Yarn(8.0, 1.2079441541679836, 32.0, 1.0, 8192)


def test_a_pair_turns_by_its_frequency_times_the_position():
    frequencies = rope.inverse_frequencies(4, 10_000.0)
    np.testing.assert_allclose(frequencies, [1.0, 0.01])
    x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)  # pairs (1, 3) and (2, 4)
    got = rope.rotate(x, rope.rope_table(jnp.array([[5]]), frequencies, 1.0)).reshape(-1)
    for i, angle in enumerate((5.0, 0.05)):
        turned = complex(x.ravel()[i], x.ravel()[i + 2]) * np.exp(1j * angle)
        np.testing.assert_allclose([got[i], got[i + 2]], [turned.real, turned.imag], rtol=1e-5)


def test_scores_depend_on_distance_only():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 1, 128)), jnp.float32) for _ in range(2))
    frequencies = rope.inverse_frequencies(128, 1_000_000.0)

    def score(i, j):
        a, b = (rope.rotate(x, rope.rope_table(jnp.array([[p]]), frequencies, 1.0)) for x, p in ((q, i), (k, j)))
        return float(jnp.sum(a * b))

    assert score(36_800, 36_790) == pytest.approx(score(10, 0), abs=0.05)


def test_yarn_keeps_fast_pairs_divides_slow_ones_and_ramps_between():
    plain, yarn = (rope.inverse_frequencies(128, 500_000.0, y) for y in (None, OLMO3))
    ratio = plain / yarn
    # 8192 positions hold 32 turns up to pair 18 and one turn up to pair 34.95 (of 64).
    np.testing.assert_allclose(ratio[:19], 1.0, rtol=1e-6)
    np.testing.assert_allclose(ratio[35:], 8.0, rtol=1e-6)
    assert (np.diff(ratio[18:36]) > 0).all()


def test_tables_are_float32_and_rotation_keeps_the_dtype():
    table = rope.rope_table(jnp.array([[36_863]]), rope.inverse_frequencies(8, 1e6), 1.5)
    assert table.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(table**2, axis=2), 1.5**2, rtol=1e-5)
    assert rope.rotate(jnp.ones((1, 1, 2, 8), jnp.bfloat16), table).dtype == jnp.bfloat16
