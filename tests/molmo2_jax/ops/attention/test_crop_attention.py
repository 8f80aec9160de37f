"""Attention within crops: interpreted TPU kernels against plain JAX, which parity tests compare with transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu

from molmo2_jax import sharding
from molmo2_jax.aot import topology
from molmo2_jax.ops.attention.crop_attention import crop_attention

PATCHES = 293  # of 304, which is two pieces of the kernels
REAL = np.arange(608) % 304 < PATCHES


def run(implementation, heads, q, k, v, d_out):
    """(out, dq, dk, dv) on one device."""
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])
    sizes = {"heads": heads, "crop": 304, "patches": PATCHES}
    with jax.set_mesh(mesh):
        arrays = [jax.device_put(x, jax.NamedSharding(mesh, sharding.B_S_F)) for x in (q, k, v, d_out)]
        out, pull = jax.vjp(lambda *qkv: crop_attention(*qkv, **sizes, implementation=implementation), *arrays[:3])
        return [np.asarray(x, np.float32) for x in (out, *pull(arrays[3]))]


@pytest.mark.parametrize("heads", [2, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.03)])
def test_kernels_equal_plain_jax(heads, dtype, tolerance):
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=(1, 608, heads * 72)), dtype) for _ in range(4)]
    arrays[3] = arrays[3].at[:, ~REAL].set(0)  # padding has no gradient
    with pltpu.force_tpu_interpret_mode(pltpu.InterpretParams(detect_races=True)):
        got = run("pallas", heads, *arrays)
    assert not interpret_pallas_call.races.races_found  # of the last kernel, the backward pass
    got, want = ([x[:, REAL] for x in run_] for run_ in (got, run("dense", heads, *arrays)))
    for name, a, b in zip(("out", "dq", "dk", "dv"), got, want, strict=True):
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max(), name


@pytest.mark.parametrize("chip", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_kernels_compile_for_the_chips_that_hold_a_crop(chip):
    pytest.importorskip("libtpu")
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), topology.devices(chip)[:1])
    x = jax.ShapeDtypeStruct((1, 4 * 736, 1152), jnp.bfloat16, sharding=jax.NamedSharding(mesh, sharding.B_S_F))

    def both(q, k, v, d_out):
        sizes = {"heads": 16, "crop": 736, "patches": 729, "implementation": "pallas"}
        out, pull = jax.vjp(lambda *qkv: crop_attention(*qkv, **sizes), q, k, v)
        return out, pull(d_out)

    with jax.set_mesh(mesh):
        text = jax.jit(both).lower(x, x, x, x).compile().as_text()
    assert text.count("tpu_custom_call") == (0 if chip.startswith("v4") else 2)
