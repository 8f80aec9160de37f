"""One suite for every implementation of attention: forward and gradients against the dense oracle, float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from molmo2_jax import sharding
from molmo2_jax.ops import mask
from molmo2_jax.ops.attention import IMPLEMENTATIONS, attention
from molmo2_jax.ops.blockwise_attention import blockwise_attention
from molmo2_jax.ops.dense_attention import dense_attention
from tests.ops import trees

TOLERANCE = 1e-5  # of the largest value compared
UNDER_TEST = {f"blockwise_{n}": functools.partial(blockwise_attention, block=n) for n in (8, 20, 64)}


def inputs(B=2, S=48, N=4, K=2, H=8, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    q, k, v, do = (rng.normal(size=(B, S, n, H)).astype(dtype) for n in (N, K, K, N))
    return q, k, v, do


@functools.cache
def with_gradients(function):
    """jitted (q, k, v, do, vis) -> (out, dq, dk, dv)."""

    @jax.jit
    def run(q, k, v, do, vis):
        out, pull = jax.vjp(lambda q, k, v: function(q, k, v, vis, vis), q, k, v)
        return (out, *pull(do))

    return run


def assert_close(got, want):
    # A query that sees only itself has no gradient but rounding: outputs and gradients share one scale.
    scale = max(float(jnp.abs(b).max()) for b in want)
    for name, a, b in zip(("out", "dq", "dk", "dv"), got, want, strict=True):
        assert float(jnp.abs(a - b).max()) <= TOLERANCE * scale, name


def naive(q, k, v, allowed):
    """Attention of one row and head after the definition, in float64."""
    out = np.zeros_like(q, np.float64)
    for i in range(len(q)):
        keys = np.flatnonzero(allowed[i])
        if len(keys):
            scores = k[keys].astype(np.float64) @ q[i] / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max())
            out[i] = weights / weights.sum() @ v[keys]
    return out


@given(trees.rows(batch=1))
@settings(deadline=None, max_examples=15)
def test_dense_is_the_definition(rows):
    q, k, v, _ = inputs(B=1)
    vis = mask.row_visibility(jnp.asarray(rows.until), jnp.asarray(rows.group))
    got = dense_attention(*(jnp.asarray(x) for x in (q, k, v)), vis, vis)
    for head in range(4):
        want = naive(q[0, :, head], k[0, :, head // 2], v[0, :, head // 2], rows.allowed[0])
        np.testing.assert_allclose(got[0, :, head], want, atol=2e-6)


@pytest.mark.parametrize("name", UNDER_TEST)
@given(rows=trees.rows())
@settings(deadline=None, max_examples=40)
def test_equals_dense_on_random_packed_trees(name, rows):
    vis = mask.row_visibility(jnp.asarray(rows.until), jnp.asarray(rows.group))
    args = (*inputs(), vis)
    assert_close(with_gradients(UNDER_TEST[name])(*args), with_gradients(dense_attention)(*args))


def vis_of(until, group):
    return mask.row_visibility(jnp.asarray(until, jnp.int32)[None], jnp.asarray(group, jnp.int32)[None])


PACKED = [30] * 30 + [70] * 41 + [0] * 6
IMAGES = [0] * 4 + [1] * 20 + [0] * 20 + [2] * 12 + [0] * 21


@pytest.mark.parametrize("name", UNDER_TEST)
@pytest.mark.parametrize("heads", [(4, 4), (8, 2), (3, 1)])
def test_equals_dense_for_odd_lengths_and_head_counts(name, heads):
    N, K = heads
    vis = vis_of(PACKED, IMAGES)
    args = (*inputs(B=1, S=77, N=N, K=K), vis)
    assert_close(with_gradients(UNDER_TEST[name])(*args), with_gradients(dense_attention)(*args))


@pytest.mark.parametrize("name", ["dense", *UNDER_TEST])
def test_a_row_of_padding_gives_zeros_and_zero_gradients(name):
    function = dense_attention if name == "dense" else UNDER_TEST[name]
    vis = vis_of([0] * 48, [0] * 48)
    for x in with_gradients(function)(*inputs(B=1), vis):
        assert (x == 0).all()


@pytest.mark.parametrize("name", ["dense", *UNDER_TEST])
def test_queries_of_one_branch_send_exactly_zero_to_another(name):
    function = dense_attention if name == "dense" else UNDER_TEST[name]
    until = [30] * 10 + [20] * 10 + [30] * 10 + [48] * 18  # a root, two branches, another example
    q, k, v, do = inputs(B=1)
    do[:, :20] = do[:, 30:] = 0  # only the second branch's outputs matter
    _, dq, dk, dv = with_gradients(function)(q, k, v, do, vis_of(until, [0] * 48))
    for x in (dk, dv):
        assert (x[:, 10:20] == 0).all() and (x[:, 30:] == 0).all()
        assert (x[:, :10] != 0).any() and (x[:, 20:30] != 0).any()
    assert (dq[:, :20] == 0).all() and (dq[:, 30:] == 0).all()


def test_large_scores_do_not_overflow():
    q, k, v, do = inputs(B=1)
    vis = vis_of([48] * 48, [0] * 48)
    args = (q * 100, k * 100, v, do, vis)
    got = with_gradients(UNDER_TEST["blockwise_20"])(*args)
    assert all(jnp.isfinite(x).all() for x in got)
    np.testing.assert_allclose(got[0], with_gradients(dense_attention)(*args)[0], atol=1e-4)


def test_bfloat16_accumulates_in_float32():
    q, k, v, do = (jnp.asarray(x, jnp.bfloat16) for x in inputs(B=1, S=77))
    vis = vis_of(PACKED, IMAGES)
    exact = with_gradients(dense_attention)(*(x.astype(jnp.float32) for x in (q, k, v, do)), vis)
    for a, b in zip(with_gradients(UNDER_TEST["blockwise_20"])(q, k, v, do, vis), exact, strict=True):
        assert a.dtype == jnp.bfloat16
        assert float(jnp.abs(a.astype(jnp.float32) - b).max()) <= 0.03 * float(jnp.abs(b).max())


def test_memory_grows_with_the_length_not_its_square():
    def temporaries(function, S):
        vis = vis_of([S] * S, [0] * S)
        step = with_gradients(function)
        return step.lower(*inputs(B=1, S=S), vis).compile().memory_analysis().temp_size_in_bytes

    blockwise = functools.partial(blockwise_attention, block=128)
    assert temporaries(blockwise, 4096) < 3 * temporaries(blockwise, 2048)
    assert temporaries(blockwise, 4096) < temporaries(dense_attention, 4096) / 10


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 2, 1, 2), (1, 2, 2, 2), (1, 1, 4, 2)])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_any_mesh_gives_what_one_device_gives(sizes, implementation):
    devices = jax.devices()[: int(np.prod(sizes))]
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), devices)
    q, k, v, do = inputs(B=4, S=80)
    until = np.tile(np.array([*PACKED, 0, 0, 0], np.int32), (4, 1))
    group = np.tile(np.array([*IMAGES, 0, 0, 0], np.int32), (4, 1))
    vis = mask.row_visibility(jnp.asarray(until), jnp.asarray(group))
    want = with_gradients(dense_attention)(q, k, v, do, vis)

    @jax.jit
    def run(q, k, v, do, until, group):
        vis = mask.row_visibility(until, group)
        out, pull = jax.vjp(lambda *qkv: attention(*qkv, vis, implementation=implementation), q, k, v)
        return (out, *pull(do))

    with jax.set_mesh(mesh):
        heads, rows = (jax.NamedSharding(mesh, s) for s in (sharding.B_S_N_H, sharding.B_S))
        placed = [jax.device_put(x, heads) for x in (q, k, v, do)] + [jax.device_put(x, rows) for x in (until, group)]
        got = [jnp.asarray(np.asarray(x)) for x in run(*placed)]
    assert_close(got, want)


def test_an_unknown_implementation_is_named():
    with pytest.raises(ValueError, match="'flash' is unknown"):
        attention(None, None, None, None, implementation="flash")
