"""One suite for every kernel and every strategy: forward and gradients against the dense oracle, float32."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax._src.pallas.mosaic.interpret import interpret_pallas_call  # has the result of the race detector
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from molmo2_jax import sharding
from molmo2_jax.ops.attention import attention as attention_module
from molmo2_jax.ops.attention import blockwise, mask, pallas_tpu, ring
from molmo2_jax.ops.attention.attention import attention, check_supported
from molmo2_jax.ops.attention.dense import dense_attention
from tests.molmo2_jax.ops.attention import trees
from tests.molmo2_jax.ops.attention.layouts import LAYOUTS, LENGTH, assert_close, inputs, of_kernel, oracle, vis_of


def blocks(size):
    """The blockwise kernel with blocks of `size`."""
    return [functools.partial(f, block=size) for f in (blockwise.forward, blockwise.backward)]


KERNELS = {f"blockwise_{size}": of_kernel(*blocks(size)) for size in (8, 20)}


def mesh_of(*sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    return sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), devices)


def over_mesh(implementation, context, *sizes):
    """As `oracle`, for `attention` on a mesh."""
    mesh = mesh_of(*sizes)

    @jax.jit
    def step(q, k, v, d_out, vis):
        def function(q, k, v):
            return attention(q, k, v, vis, implementation=implementation, context=context)

        out, pull = jax.vjp(function, q, k, v)
        return (out, *pull(d_out))

    def run(q, k, v, d_out, vis):
        with jax.set_mesh(mesh):
            heads, rows = (jax.NamedSharding(mesh, s) for s in (sharding.B_S_N_H, sharding.B_S))
            arrays = [jax.device_put(x, heads) for x in (q, k, v, d_out)]
            return [np.asarray(x) for x in step(*arrays, jax.device_put(vis, rows))]

    return run


MESHES = {  # name -> implementation, strategy, mesh
    "dense_2": ("dense", "all_gather", 2, 1, 2, 2),
    "one_device": ("blockwise", "ring", 1, 1, 1, 1),
    "all_gather_4": ("blockwise", "all_gather", 1, 1, 4, 2),
    "ring_2": ("blockwise", "ring", 1, 2, 2, 2),
    "ring_4": ("blockwise", "ring", 1, 1, 4, 2),
    "ring_8": ("blockwise", "ring", 1, 1, 8, 1),
    "ulysses_2": ("blockwise", "ulysses", 2, 1, 2, 2),
    "ulysses_4": ("blockwise", "ulysses", 1, 1, 4, 1),
}


@functools.cache
def on_mesh(name):
    return over_mesh(*MESHES[name])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [*KERNELS, *MESHES])
def test_equals_dense(name, layout):
    # Two kinds of rows, so that a kernel cannot treat all rows of a batch like one of them.
    args = (*inputs(N=8, K=4), vis_of(LAYOUTS[layout], LAYOUTS["causal" if layout != "causal" else "mixed"]))
    run = KERNELS[name] if name in KERNELS else on_mesh(name)
    assert_close(run(*args), oracle()(*args))


@pytest.mark.parametrize("name", [*KERNELS, *MESHES])
def test_a_row_of_padding_gives_zeros_and_zero_gradients(name):
    args = (*inputs(N=8, K=4), vis_of(LAYOUTS["nothing"], LAYOUTS["nothing"]))
    for x in (KERNELS[name] if name in KERNELS else on_mesh(name))(*args):
        assert (x == 0).all()


@pytest.mark.parametrize("name", [*KERNELS, *MESHES])
def test_queries_of_one_branch_send_exactly_zero_to_another(name):
    until = [60] * 20 + [40] * 20 + [60] * 20 + [LENGTH] * 36  # a root, two branches, another example
    q, k, v, d_out = inputs(N=8, K=4)
    d_out[:, :40] = d_out[:, 60:] = 0  # only the second branch's outputs matter
    vis = vis_of((until, [0] * LENGTH), (until, [0] * LENGTH))
    _, dq, dk, dv = (KERNELS[name] if name in KERNELS else on_mesh(name))(q, k, v, d_out, vis)
    for x in (dk, dv):
        assert (x[:, 20:40] == 0).all() and (x[:, 60:] == 0).all()
        assert (x[:, :20] != 0).any() and (x[:, 40:60] != 0).any()
    assert (dq[:, :40] == 0).all() and (dq[:, 60:] == 0).all()


def stretched(layout, times=4):
    """A layout with rows `times` as long, which blocks of 128 tokens split into several tiles."""
    until, group = (np.repeat(np.array(x, np.int32), times) for x in LAYOUTS[layout])
    return until * times, group


def without_races(function):
    """Runs one interpreted kernel and checks for races: jax reports those of the last kernel only."""

    def run(*args):
        result = jax.block_until_ready(function(*args))
        assert not interpret_pallas_call.races.races_found
        return result

    return run


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tpu_kernels_equal_dense(layout):
    tiles = pallas_tpu.Blocks(128, 128, 128, resident=256, vmem=1 << 24)
    forward, backward = (
        without_races(functools.partial(f, blocks=tiles)) for f in (pallas_tpu.forward, pallas_tpu.backward)
    )
    # Padded from 300 tokens to 384; the second row is all padding.
    q, k, v, d_out = inputs(B=2, S=300, N=2, K=1, H=128)
    vis = vis_of([x[:300] for x in stretched(layout)], ([0] * 300, [0] * 300))
    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(detect_races=True)):
        out, lse = forward(q, k, v, vis, vis)
        delta = jnp.einsum("BQNH,BQNH->BNQ", d_out, out)
        grads = backward(q, k, v, vis, vis, lse, delta, d_out)
    assert_close((out, *grads), oracle()(q, k, v, d_out, vis))
    assert all((x[1] == 0).all() for x in (out, *grads))


def test_two_cores_of_a_chip_split_the_kv_heads_without_races():
    tiles = pallas_tpu.Blocks(128, 128, 128, resident=256, vmem=1 << 24)
    parts = (functools.partial(f, blocks=tiles) for f in (pallas_tpu.forward, pallas_tpu.backward))
    forward, backward = (without_races(part) for part in parts)
    q, k, v, d_out = inputs(B=1, S=200, N=4, K=2, H=128)
    vis, cores = vis_of([x[:200] for x in stretched("mixed")]), set()

    def record(device, at, core):
        cores.add(int(core))
        return np.int32(0)

    two = pltpu.InterpretParams(detect_races=True, num_cores_or_threads=2, grid_point_recorder=record)
    with pltpu.force_tpu_interpret_mode(two):
        out, lse = forward(q, k, v, vis, vis)
        delta = jnp.einsum("BQNH,BQNH->BNQ", d_out, out)
        grads = backward(q, k, v, vis, vis, lse, delta, d_out)
    assert cores == {0, 1}
    assert_close((out, *grads), oracle()(q, k, v, d_out, vis))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("context, degree", [("all_gather", 4), ("ulysses", 2), ("ring", 2), ("ring", 4), ("ring", 8)])
def test_tpu_kernels_equal_dense_over_devices(context, degree, layout, tpu_kernels_on_cpu):
    # At degree 8 each shard is one tile. Ring steps without a visible pair are skipped here as well.
    row = [x[:1024] for x in stretched(layout, times=11)]
    args = (*inputs(B=1, S=1024, N=2, K=2, H=128), vis_of(row))
    assert_close(tpu_kernels_on_cpu(context, degree)(*args), oracle()(*args))


@pytest.fixture(scope="module")
def tpu_kernels_on_cpu():
    """(context, degree) -> as `over_mesh`, in Pallas' plain interpreter: in the TPU interpreter the devices wait."""
    with pytest.MonkeyPatch.context() as patch:
        tiles = pallas_tpu.Blocks(128, 128, 128, resident=256, vmem=1 << 24)
        patch.setattr(pallas_tpu, "chip_blocks", lambda: tiles)
        patch.setattr(pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True))
        yield functools.cache(lambda context, degree: over_mesh("pallas", context, 1, 1, degree, 1))


def naive(q, k, v, allowed):
    """Attention of one row and head by definition, in float64."""
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
    q, k, v, _ = inputs(B=1, S=48)
    vis = vis_of((rows.until[0], rows.group[0]))
    got = dense_attention(*(jnp.asarray(x) for x in (q, k, v)), vis, vis)
    for head in range(4):
        want = naive(q[0, :, head], k[0, :, head // 2], v[0, :, head // 2], rows.allowed[0])
        np.testing.assert_allclose(got[0, :, head], want, atol=2e-6)


@pytest.mark.parametrize("name", KERNELS)
@given(rows=trees.rows())
@settings(deadline=None, max_examples=40)
def test_equals_dense_on_random_packed_trees(name, rows):
    args = (*inputs(S=48), vis_of(*zip(rows.until, rows.group, strict=True)))
    assert_close(KERNELS[name](*args), oracle()(*args))


PACKED = [30] * 30 + [70] * 41 + [0] * 6
IMAGES = [0] * 4 + [1] * 20 + [0] * 20 + [2] * 12 + [0] * 21


@pytest.mark.parametrize("heads", [(4, 4), (8, 2), (3, 1)])
def test_equals_dense_for_odd_lengths_and_head_counts(heads):
    N, K = heads
    args = (*inputs(B=1, S=77, N=N, K=K), vis_of((PACKED, IMAGES)))
    assert_close(KERNELS["blockwise_20"](*args), oracle()(*args))


def test_parts_of_the_keys_add_up():
    forward, backward = (jax.jit(f) for f in blocks(20))
    q, k, v, d_out = inputs()
    vis = vis_of(LAYOUTS["mixed"], LAYOUTS["tree"])
    want_out, *want = oracle()(q, k, v, d_out, vis)
    parts = [(k[:, s], v[:, s], jax.tree.map(lambda x, s=s: x[:, s], vis)) for s in (slice(0, 52), slice(52, 96))]
    results = [forward(q, k_, v_, vis, k_vis) for k_, v_, k_vis in parts]
    out, lse = ring._merge(*((out.reshape(*out.shape[:2], -1), lse) for out, lse in results))
    out = out.reshape(q.shape)
    delta = jnp.einsum("BQNH,BQNH->BNQ", d_out, out)
    (dq, *left), (dq_, *right) = (backward(q, *part[:2], vis, part[2], lse, delta, d_out) for part in parts)
    got = dq + dq_, *(jnp.concatenate(pair, 1) for pair in zip(left, right, strict=True))
    assert_close((out, *got), (want_out, *want))


def test_large_scores_do_not_overflow():
    q, k, v, d_out = inputs(N=8, K=4)  # shapes that are compiled already
    args = (q * 30, k * 30, v, d_out, vis_of(LAYOUTS["causal"], LAYOUTS["mixed"]))
    for run in (KERNELS["blockwise_20"], on_mesh("ring_4")):
        got = run(*args)
        assert all(np.isfinite(x).all() for x in got)
        np.testing.assert_allclose(got[0], oracle()(*args)[0], atol=1e-3)


@pytest.mark.parametrize("name", ["blockwise_20", "ring_4"])
def test_bfloat16_accumulates_in_float32(name):
    args = [jnp.asarray(x, jnp.bfloat16) for x in inputs(N=8, K=4)]
    vis = vis_of(LAYOUTS["mixed"], LAYOUTS["packed"])
    run = KERNELS[name] if name in KERNELS else on_mesh(name)
    exact = oracle()(*(x.astype(jnp.float32) for x in args), vis)
    got = run(*args, vis)
    assert {x.dtype for x in got[1:]} == {jnp.dtype("float32" if name in KERNELS else "bfloat16")}
    for a, b in zip(got, exact, strict=True):
        assert float(jnp.abs(a.astype(jnp.float32) - b).max()) <= 0.03 * float(jnp.abs(b).max())


def test_memory_grows_with_the_length_not_its_square():
    def temporaries(run, S):
        args = (*inputs(B=1, S=S), vis_of(([S] * S, [0] * S)))
        return run.lower(*args).compile().memory_analysis().temp_size_in_bytes

    blockwise = of_kernel(*blocks(128))
    assert temporaries(blockwise, 4096) < 3 * temporaries(blockwise, 2048)
    assert temporaries(blockwise, 4096) < temporaries(oracle(), 4096) / 10


class Kernel(NamedTuple):
    """A kernel that is not a module."""

    forward: object
    backward: object


def test_a_ring_step_without_a_visible_pair_runs_no_kernel(monkeypatch):
    calls = []

    def counted(name):
        def run(*args):
            jax.debug.callback(lambda d: calls.append((name, int(d))), jax.lax.axis_index(sharding.CONTEXT))
            return getattr(blockwise, name)(*args)

        return run

    monkeypatch.setitem(attention_module.KERNELS, "counted", Kernel(counted("forward"), counted("backward")))
    monkeypatch.setattr(attention_module, "IMPLEMENTATIONS", ("dense", *attention_module.KERNELS))
    run = over_mesh("counted", "ring", 1, 1, 8, 1)
    for layout in ("causal", "packed", "image", "nothing"):
        vis = vis_of(LAYOUTS[layout])
        calls.clear()
        run(*inputs(B=1), vis)
        jax.effects_barrier()
        pairs = np.asarray(mask.allowed(vis, vis))[0].reshape(8, 12, 8, 12).any((1, 3))
        pairs |= np.eye(8, dtype=bool)  # the first step, with the device's own keys, always runs
        for name in ("forward", "backward"):
            assert [calls.count((name, d)) for d in range(8)] == pairs.sum(1).tolist(), (layout, name)


def test_unsupported_combinations_are_named():
    ok = {"implementation": "blockwise", "context": "ring", "kv_heads": 2, "mesh": mesh_of(1, 1, 4, 1)}
    check_supported(**ok)
    for change, words in (
        ({"implementation": "flash"}, "attention 'flash' is unknown"),
        ({"context": "star"}, "context 'star' is unknown"),
        ({"implementation": "dense"}, 'attention "dense" needs context "all_gather" on this mesh, not \'ring\''),
        ({"context": "ulysses"}, 'kv heads under context "ulysses" = 2 cannot be divided into 4 shards'),
    ):
        with pytest.raises(ValueError, match=words):
            check_supported(**ok | change)
    check_supported("dense", "ulysses", 1, mesh_of(1, 1, 1, 1))  # one device along context


def test_attention_checks_that_the_mesh_supports_it():
    with jax.set_mesh(mesh_of(1, 1, 4, 1)), pytest.raises(ValueError, match="2 cannot be divided into 4 shards"):
        attention(*(jnp.asarray(x) for x in inputs()[:3]), None, implementation="blockwise", context="ulysses")


def test_saved_results_are_not_computed_again():
    def sends(policy):
        def function(q, k, v):
            return attention(q, k, v, vis, implementation="blockwise", context="ring")

        again = jax.checkpoint(function, policy=policy)
        return str(jax.make_jaxpr(lambda *qkv: jax.vjp(again, *qkv)[1](qkv[0]))(q, k, v)).count("ppermute")

    mesh = mesh_of(1, 1, 4, 1)
    with jax.set_mesh(mesh):
        q, k, v = (jax.device_put(x, jax.NamedSharding(mesh, sharding.B_S_N_H)) for x in inputs()[:3])
        vis = jax.device_put(vis_of(LAYOUTS["mixed"], LAYOUTS["tree"]), jax.NamedSharding(mesh, sharding.B_S))
        saved = sends(jax.checkpoint_policies.save_only_these_names("attention"))
        nothing = sends(jax.checkpoint_policies.nothing_saveable)
    assert nothing - saved == 3 * 3  # keys, values and visibility, to three devices
