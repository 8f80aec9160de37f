"""The loss in chunks: values, gradients, and arrays that must not exist."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.ops.loss import loss_sums

AXES = ("vocab", "embed")


def batch(B=4, S=24, D=16, V=60, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    x, table = rng.normal(size=(B, S, D)).astype("f"), rng.normal(size=(V, D)).astype("f")
    weights = (rng.random((B, S)) * (rng.random((B, S)) < share)).astype("f")
    return x, table, rng.integers(0, V, (B, S)).astype("i4"), weights


def plain(x, table, targets, weights):
    """(sums of cross entropy, z and correct) with all logits at once."""
    logits = jnp.einsum("BSD,VD->BSV", x, table)
    lse = jax.nn.logsumexp(logits, -1)
    ce = lse - jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    correct = jnp.sum(weights * (logits.argmax(-1) == targets))
    return jnp.sum(weights * ce), jnp.sum(weights * lse**2), correct


def run(sizes, chunk, x, table, targets, weights):
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), jax.devices()[: int(np.prod(sizes))])
    specs = (sharding.B_S_D, sharding.stored(AXES, 2), sharding.B_S, sharding.B_S)
    with jax.set_mesh(mesh):
        args = [
            jax.device_put(a, jax.NamedSharding(mesh, s))
            for a, s in zip((x, table, targets, weights), specs, strict=True)
        ]

        def loss(x, table):
            sums = loss_sums(x, table, AXES, *args[2:], chunk=chunk)
            return sums.cross_entropy + 0.01 * sums.z, sums

        (_, sums), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(*args[:2])
    return jax.tree.map(np.asarray, (sums, grads))


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 2, 1, 2), (1, 2, 2, 2), (1, 1, 8, 1)])
@pytest.mark.parametrize("chunk", [7, 64])
@pytest.mark.parametrize("V", [64, 60, 42])  # over context 8 the last device has 8, 4 and 0 rows of them
def test_sums_and_gradients_equal_those_with_all_logits(sizes, chunk, V):
    x, table, targets, weights = batch(V=V)
    sums, grads = run(sizes, chunk, x, table, targets, weights)
    ce, z, correct = plain(x, table, targets, weights)
    np.testing.assert_allclose([sums.cross_entropy, sums.z, sums.correct], [ce, z, correct], rtol=1e-6)
    np.testing.assert_allclose(sums.weight, weights.sum(), rtol=1e-6)
    assert sums.tokens == np.count_nonzero(weights)

    def reference(x, table):
        ce, z, _ = plain(x, table, targets, weights)
        return ce + 0.01 * z

    for got, want in zip(grads, jax.grad(reference, argnums=(0, 1))(x, table), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_positions_without_weight_get_exactly_no_gradient():
    x, table, targets, weights = batch()
    _, (dx, _) = run((1, 1, 1, 1), 16, x, table, targets, weights)
    assert (dx[weights == 0] == 0).all() and (dx[weights > 0] != 0).any(-1).all()


def test_a_batch_without_loss_weights_sums_to_zero():
    x, table, targets, _ = batch()
    sums, (dx, d_table) = run((1, 1, 1, 1), 16, x, table, targets, np.zeros_like(targets, "f"))
    assert not any(np.any(s) for s in sums) and not dx.any() and not d_table.any()


def test_no_array_of_logits_exists():
    V, S = 4096, 2048
    x, table, targets, weights = batch(B=1, S=S, V=V)
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        x, targets, weights = sharding.put_rows({"x": x, "t": targets, "w": weights}, mesh).values()
        table = jax.device_put(table, jax.NamedSharding(mesh, sharding.stored(AXES, 2)))
        loss = jax.grad(lambda x: loss_sums(x, table, AXES, targets, weights, chunk=64).cross_entropy)
        text = jax.jit(loss).lower(x).compile().as_text()
    assert f"[64,{V}]" in text and f"{S},{V}]" not in text


def test_no_device_holds_the_whole_table_or_its_gradient():
    V, D = 4096, 48
    x, table, targets, weights = batch(B=2, S=256, D=D, V=V)
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, (1, 2, 4, 1), strict=True)), jax.devices())
    with jax.set_mesh(mesh):
        x, targets, weights = sharding.put_rows({"x": x, "t": targets, "w": weights}, mesh).values()
        table = jax.device_put(table, jax.NamedSharding(mesh, sharding.stored(AXES, 2)))
        loss = jax.grad(lambda x, table: loss_sums(x, table, AXES, targets, weights, chunk=8).cross_entropy, (0, 1))
        text = jax.jit(loss).lower(x, table).compile().as_text()
    assert f"[{4 * 8},{V // 4}]" in text and f"[{V // 4},{D}]" in text
    assert f"[{V},{D}]" not in text and f",{V}]" not in text


def test_gradients_of_the_table_are_not_rounded_to_the_compute_dtype():
    x, table, targets, weights = batch()
    _, (dx, d_table) = run((1, 1, 1, 1), 16, jnp.asarray(x, jnp.bfloat16), table, targets, weights)
    assert dx.dtype == jnp.bfloat16 and d_table.dtype == np.float32
    assert (d_table != np.asarray(d_table, jnp.bfloat16).astype(np.float32)).any()


def programs(of):
    """(traced, compiled) text of the gradient with respect to arguments `of`; fsdp, context and tensor are 2 each."""
    x, table, targets, weights = batch(V=64)
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, (1, 2, 2, 2), strict=True)), jax.devices())
    specs = (sharding.B_S_D, sharding.stored(AXES, 2), sharding.B_S, sharding.B_S)
    with jax.set_mesh(mesh):
        args = [
            jax.device_put(a, jax.NamedSharding(mesh, s))
            for a, s in zip((x, table, targets, weights), specs, strict=True)
        ]

        def loss(x, table):
            return loss_sums(x, table, AXES, *args[2:], chunk=8).cross_entropy

        lowered = jax.jit(jax.grad(loss, argnums=of)).lower(*args[:2])
        return lowered.as_text(), lowered.compile().as_text()


def test_gradients_of_the_table_are_scattered_as_they_are_summed():
    assert "reduce_scatter" in programs(of=(0, 1))[0]


def test_a_table_that_does_not_train_costs_no_gradient():
    matmul = "cv,cd->vd"  # part of op_name in a compiled program
    assert matmul in programs(of=(0, 1))[1]
    assert matmul not in programs(of=0)[1]
