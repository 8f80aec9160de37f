"""Peak FLOP/s of devices, which the MFU is relative to: from data sheets, or measured."""

import time

import jax
import jax.numpy as jnp
import numpy as np

# Dense bfloat16 FLOP/s by `device_kind`, from the vendors' data sheets.
PEAK = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 1153.5e12,  # half a chip: each of its two chiplets is a device
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device: jax.Device) -> tuple[float, str]:
    """(FLOP/s of one device, where the figure is from). Devices not in PEAK are measured: the best of 3 matmuls."""
    if device.device_kind in PEAK:
        return PEAK[device.device_kind], "data sheet, bfloat16"
    n = 1024
    a = jax.device_put(np.ones((n, n), np.float32), device)
    with jax.set_mesh(jax.make_mesh((1,), ("one",), devices=[device])):  # not sharded over the mesh of the run
        product = jax.jit(jnp.dot).lower(a, a).compile()
    product(a, a).block_until_ready()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2.0 * n**3 / min(times), f"measured, float32 matmul on {device.device_kind}"
