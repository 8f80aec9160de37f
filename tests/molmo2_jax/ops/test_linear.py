"""A product with a sharded weight: values, and weight gradients summed in float32 and scattered."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.ops.linear import project

EQUATION, AXES = "BSD,DNH->BSNH", ("embed", "heads", "head_dim")


def run(sizes, x, w, dtype):
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), jax.devices()[: int(np.prod(sizes))])
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.asarray(x, dtype), jax.NamedSharding(mesh, sharding.B_S_D))
        w = jax.device_put(w, jax.NamedSharding(mesh, sharding.stored(AXES, 3)))

        def loss(x, w):
            y = project(EQUATION, x, w, AXES, sharding.B_S_N_H)
            return jnp.sum(jnp.sin(y.astype(jnp.float32))), y

        (_, y), (dx, dw) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(x, w)
        assert dw.sharding.spec == w.sharding.spec and dw.dtype == jnp.float32 and dx.dtype == dtype
    return [np.asarray(a, np.float32) for a in (y, dx, dw)]


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 2, 1, 2), (1, 2, 4, 1)])
def test_equals_einsum_and_its_gradients_on_any_mesh(sizes):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 8, 6)).astype("f"), rng.normal(size=(6, 2, 3)).astype("f")

    def loss(x, w):
        y = jnp.einsum(EQUATION, x, w)
        return jnp.sum(jnp.sin(y)), y

    (_, y), (dx, dw) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(x, w)
    for got, want in zip(run(sizes, x, w, jnp.float32), (y, dx, dw), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_weight_gradients_of_bfloat16_inputs_are_summed_in_float32():
    x = np.ones((1, 4096, 2), "f")
    w = np.zeros((2, 1, 1), "f")
    _, _, dw = run((1, 1, 1, 1), x, w, jnp.bfloat16)
    np.testing.assert_array_equal(dw.ravel(), [4096, 4096])  # a bfloat16 sum stops growing at 256


@pytest.mark.parametrize(
    ("equation", "shape", "axes", "x", "out", "scattered"),
    [
        (EQUATION, (8, 2, 3), AXES, sharding.B_S_D, sharding.B_S_N_H, "1x2x1x3"),
        ("BSNH,NHD->BSD", (2, 3, 8), ("heads", "head_dim", "embed"), sharding.B_S_N_H, sharding.B_S_D, "3x1x2"),
    ],
)
def test_weight_gradients_are_scattered_as_they_are_summed(equation, shape, axes, x, out, scattered):
    """Shards have their own dimension, with at most one before it: `scattered_sum` has the reason."""
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, (1, 4, 1, 2), strict=True)), jax.devices())
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.zeros((4, 8, *shape[: len(x) - 2])), jax.NamedSharding(mesh, x))
        w = jax.device_put(jnp.zeros(shape), jax.NamedSharding(mesh, sharding.stored(axes, 3)))
        gradient = jax.grad(lambda w: project(equation, x, w, axes, out).sum())
        program = jax.jit(gradient).lower(w).as_text()
    assert re.search(rf"reduce_scatter.*?-> tensor<{scattered}xf32>", program, re.DOTALL)
