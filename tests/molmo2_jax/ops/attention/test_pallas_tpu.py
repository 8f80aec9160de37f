"""Specific to the TPU kernels: tile lists, odd sizes and chips. test_attention.py compares their results with dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.experimental.pallas import tpu as pltpu

from molmo2_jax.aot import topology
from molmo2_jax.ops.attention import mask, pallas_tpu
from tests.molmo2_jax.ops.attention import trees

BLOCKS = pallas_tpu.Blocks(128, 128, 128, resident=256, vmem=1 << 24)


def visibility(until, group):
    return mask.row_visibility(jnp.asarray(until, jnp.int32), jnp.asarray(group, jnp.int32))


def run_steps(vis, block):
    """The steps of a call: [(row, query block, key block, class, flags without the class)]."""
    steps, count = pallas_tpu._steps(mask.tile_classes(vis, vis, block, block))
    rows, qs, ks, flags = (np.asarray(x)[: int(count)] for x in steps)
    return list(zip(rows, qs, ks, flags & 3, flags & ~3, strict=True))


@given(rows=trees.rows(batch=2, length=48))
@settings(deadline=None, max_examples=40)
def test_tiles_run_are_those_with_an_allowed_pair(rows):
    block = 8
    ran = [(b, i, j) for b, i, j, kind, _ in run_steps(visibility(rows.until, rows.group), block) if kind != mask.EMPTY]
    tiles = rows.allowed.reshape(2, 6, block, 6, block).any((2, 4))
    assert ran == [tuple(at) for at in np.argwhere(tiles)]


@given(rows=trees.rows(batch=2, length=48))
@settings(deadline=None, max_examples=20)
def test_every_query_block_starts_and_ends_once(rows):
    steps = run_steps(visibility(rows.until, rows.group), 8)
    for bit, keys in ((pallas_tpu._FIRST, 2), (pallas_tpu._ROW_FIRST, 1)):
        starts = [step[:keys] for step in steps if step[4] & bit]
        ends = [step[:keys] for step in steps if step[4] & (bit << 1)]
        assert starts == ends == sorted({step[:keys] for step in steps})
    assert {step[:2] for step in steps} == {(b, i) for b in range(2) for i in range(6)}


def fine_tuning_row(length=2048):
    """(until, group, allowed pairs): two videos with four branches each, a text of three branches, padding."""
    until, group, owner = np.zeros(length, int), np.zeros(length, int), np.full(length, -1)
    start = 0
    for number, (visual, branches) in enumerate([(700, [60, 40, 90, 30]), (420, [25, 35, 10, 110]), (0, [70, 80, 50])]):
        root = max(visual, 20)
        stop = start + root + sum(branches)
        until[start : start + root] = stop
        group[start : start + visual] = number + 1
        owner[start : start + root] = 100 * number
        at = start + root
        for branch, size in enumerate(branches):
            until[at : at + size] = at + size
            owner[at : at + size] = 100 * number + branch + 1
            at += size
        start = stop
    i = np.arange(length)
    same = owner[:, None] == owner[None]
    from_root = (owner[:, None] // 100 == owner[None] // 100) & (owner[None] % 100 == 0)
    both_visual = (group[:, None] == group[None]) & (group[:, None] > 0)
    causal = (i[None] <= i[:, None]) & (owner[:, None] >= 0)
    return until[None], group[None], (causal & (same | from_root)) | both_visual


@pytest.mark.parametrize("block", [128, 256])
def test_a_packed_fine_tuning_row_runs_exactly_its_tiles(block):
    until, group, allowed = fine_tuning_row()
    n = len(allowed) // block
    tiles = allowed.reshape(n, block, n, block).any((1, 3))
    steps = run_steps(visibility(until, group), block)
    ran = [(i, j) for _, i, j, kind, _ in steps if kind != mask.EMPTY]
    assert ran == [tuple(at) for at in np.argwhere(tiles)]
    assert len(ran) < n * n * 0.4
    full = {(i, j) for _, i, j, kind, _ in steps if kind == mask.FULL}
    assert full and all(allowed.reshape(n, block, n, block)[i, :, j].all() for i, j in full)


def test_keys_of_empty_tiles_are_not_read():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(1, 256, n, 128)).astype(np.float32) for n in (2, 1, 1))
    k[:, 128:] = v[:, 128:] = np.nan  # the second half of the row is padding
    vis = visibility([[128] * 128 + [0] * 128], [[0] * 256])
    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams()):
        out, lse = pallas_tpu.forward(q, k, v, vis, vis, BLOCKS)
    assert jnp.isfinite(out).all()
    assert (out[:, 128:] == 0).all() and (lse[:, :, 128:] == pallas_tpu.NEGATIVE).all()


def test_blocks_divide_the_length_where_they_can():
    assert [pallas_tpu._block(S, 1024) for S in (36_864, 4_608, 2_560, 100, 1_100)] == [1024, 768, 640, 128, 1024]


def test_without_a_tpu_the_error_names_the_alternative():
    x = jnp.zeros((1, 128, 1, 128))
    vis = visibility([[128] * 128], [[0] * 128])
    with pytest.raises(NotImplementedError, match='"pallas" runs on TPUs only; elsewhere use "blockwise"'):
        pallas_tpu.forward(x, x, x, vis, vis)
    with pytest.raises(NotImplementedError, match="multiple of 128, not 64"):
        pallas_tpu.forward(x[..., :64], x[..., :64], x[..., :64], vis, vis, BLOCKS)


@pytest.mark.parametrize("chip", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_kernels_compile_for_the_chip(chip):
    """benchmarks/kernels_aot.py does the same for rows of up to 36,864 tokens."""
    pytest.importorskip("libtpu")
    mesh = jax.make_mesh((1,), ("one",), devices=topology.devices(chip)[:1])

    def both(q, k, v, until, group, d_out):
        vis = mask.row_visibility(until, group)
        out, lse = pallas_tpu.forward(q, k, v, vis, vis)
        delta = jnp.einsum("BQNH,BQNH->BNQ", out, d_out, preferred_element_type=jnp.float32)
        return pallas_tpu.backward(q, k, v, vis, vis, lse, delta, d_out)

    def abstract(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, jax.P()))

    S = 2_560
    q, kv, integers = abstract(1, S, 32, 128), abstract(1, S, 8, 128), abstract(1, S, dtype=jnp.int32)
    with jax.set_mesh(mesh):
        mapped = jax.jit(jax.shard_map(both, in_specs=jax.P(), out_specs=jax.P(), check_vma=False))
        text = mapped.lower(q, kv, kv, integers, integers, q).compile().as_text()
    assert text.count("tpu_custom_call") == 2
