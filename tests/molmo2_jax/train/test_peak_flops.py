"""Peak FLOP/s: of a device in the table, and of one that is measured."""

import types

import jax

from molmo2_jax.train import peak_flops


def test_the_peak_is_of_one_device():
    device = types.SimpleNamespace(device_kind="TPU v5p")
    assert peak_flops.peak_flops(device) == (459e12, "data sheet, bfloat16")
    measured, source = peak_flops.peak_flops(jax.devices()[0])
    assert 1e8 < measured < 1e15
    assert source == "measured, float32 matmul on cpu"
