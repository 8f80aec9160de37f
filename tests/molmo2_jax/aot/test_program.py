"""Lowering and compiling: rows sharded as in a run, compiler messages, programs that do not compile."""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.config import ConfigError
from data_pipelines.packing.schema import RowShape, empty_row
from molmo2_jax import sharding
from molmo2_jax.aot import program, topology

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@pytest.fixture
def on_v5e():
    """n -> float32[n] on one chip of v5e."""
    mesh = jax.make_mesh((1,), ("x",), devices=topology.devices("v5e:2x2")[:1])
    with jax.set_mesh(mesh):
        yield lambda n: jax.ShapeDtypeStruct((n,), jnp.float32, sharding=jax.NamedSharding(mesh, jax.P()))


def test_abstract_rows_are_sharded_as_in_a_run():
    shape = RowShape(seq_len=8, crops=2, pooled=4)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "context": 2, "tensor": 1}, jax.devices()[:8])
    rows = {name: np.stack([x] * 4) for name, x in empty_row(shape).items()}
    real, abstract = sharding.put_rows(rows, mesh), program.abstract_rows(shape, 4, mesh)
    assert real.keys() == abstract.keys()
    for name, x in real.items():
        assert (abstract[name].shape, abstract[name].dtype) == (x.shape, x.dtype)
        assert abstract[name].sharding.is_equivalent_to(x.sharding, x.ndim)


def test_compiler_messages_are_captured_and_forwarded(capfd):
    with program._capture_stderr() as lines:
        os.write(2, b"W spmd.cc] Involuntary full rematerialization of %x\nhello\n")
    assert lines == ["W spmd.cc] Involuntary full rematerialization of %x\n", "hello\n"]
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "".join(lines) + "after\n"


@needs_libtpu
def test_a_program_is_compiled(on_v5e):
    done = program.compile_program(jax.jit(jnp.sin, donate_argnums=0).lower(on_v5e(1024)))
    assert done.text.startswith("HloModule") and done.too_big == ""
    assert (done.memory.arguments, done.memory.output, done.memory.alias) == (4096, 4096, 4096)
    assert done.memory.peak == 4096 + done.memory.temporaries + done.memory.code
    assert done.seconds > 0 and done.host_peak > 2**27


@needs_libtpu
def test_a_program_that_does_not_fit_is_no_error(on_v5e):
    done = program.compile_program(jax.jit(jnp.sin).lower(on_v5e(3 << 30)))  # 12 GiB in and 12 out, of 16
    assert done.text == "" and done.memory is None
    assert "RESOURCE_EXHAUSTED" in done.too_big and "HBM" in done.too_big


@needs_libtpu
def test_a_program_that_the_compiler_rejects_is_an_error(on_v5e):
    lowered = jax.jit(jnp.sin, compiler_options={"xla_tpu_no_such_option": "1"}).lower(on_v5e(1024))
    with pytest.raises(ConfigError, match=r"the compiler rejects the step: .*xla_tpu_no_such_option"):
        program.compile_program(lowered)


@needs_libtpu
@pytest.mark.parametrize(("name", "devices"), [("v5e:2x2", 4), ("7x:2x2x1", 8), ("2xv5p:2x2x1", 8), ("v4:2x2x1", 4)])
def test_slices_have_devices(name, devices):
    found = topology.devices(name)
    assert len(found) == devices
    assert len({getattr(d, "slice_index", 0) for d in found}) == (2 if name.startswith("2x") else 1)
