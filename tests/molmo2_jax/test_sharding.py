"""The mesh, and the specs of parameters and rows."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding
from molmo2_jax.aot import topology

SIZES = {"data": 2, "fsdp": 2, "context": 1, "tensor": 2}


def test_a_mesh_has_all_axes_explicit():
    mesh = sharding.make_mesh(SIZES)
    assert dict(mesh.shape) == SIZES
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Explicit}
    assert sharding.make_mesh(dict.fromkeys(SIZES, 1), jax.devices()[3:4]).devices.item() == jax.devices()[3]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"data": 8}, r"exactly the axes \('data', 'fsdp', 'context', 'tensor'\), got \('data',\)"),
        (SIZES | {"expert": 1}, "exactly the axes .*'expert'"),
        (SIZES | {"context": 2}, "'context': 2.* needs 16 devices, but there are 8"),
        (SIZES | {"data": -2, "tensor": -2}, "'data': -2.* every size must be at least 1"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_an_error(sizes, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(sizes)


def slices(count, shape="v5e:2x2"):
    """Devices of `count` TPU slices of such a shape, as ahead-of-time targets."""
    pytest.importorskip("libtpu")
    return topology.devices(f"{count}x{shape}")


def test_slices_follow_each_other_along_data():
    devices = slices(2)
    mesh = sharding.make_mesh({"data": 4, "fsdp": 2, "context": 1, "tensor": 1}, devices[::-1])
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Explicit}
    assert set(mesh.devices.flat) == set(devices)
    for data, row in enumerate(mesh.devices):
        assert {device.slice_index for device in row.flat} == {data // 2}


def test_an_axis_other_than_data_cannot_cross_slices():
    with pytest.raises(ValueError, match=r"'data': 1, 'fsdp': 8.* data must be a multiple of the number of slices, 2"):
        sharding.make_mesh({"data": 1, "fsdp": 8, "context": 1, "tensor": 1}, slices(2))
    with pytest.raises(ValueError, match=r"slices have different sizes: {0: 4, 1: 2}"):
        sharding.make_mesh({"data": 6, "fsdp": 1, "context": 1, "tensor": 1}, slices(2)[:6])


@pytest.mark.parametrize(
    ("axes", "ndim", "stored", "gathered"),
    [
        (("embed", "heads", "head_dim"), 3, P("fsdp", "tensor", None), P(None, "tensor", None)),
        (("embed", "heads", "head_dim"), 4, P(None, "fsdp", "tensor", None), P(None, "tensor", None)),
        (("mlp", "embed"), 2, P("tensor", "fsdp"), P("tensor", None)),
        (("vocab", "embed"), 2, P("tensor", "fsdp"), P("tensor", None)),
        (("norm",), 2, P(None, None), P(None)),
    ],
)
def test_parameters_are_stored_in_shards_and_used_with_fsdp_gathered(axes, ndim, stored, gathered):
    assert sharding.stored(axes, ndim) == stored
    assert sharding.gathered(axes) == gathered


def test_two_logical_axes_cannot_claim_one_mesh_axis():
    with pytest.raises(ValueError, match=r"'heads', 'mlp'\) claim a mesh axis twice"):
        sharding.stored(("heads", "mlp"), 2)


def test_an_axis_without_a_rule_is_named():
    with pytest.raises(KeyError, match="experts"):
        sharding.stored(("experts", "embed"), 2)


def test_a_size_that_the_mesh_does_not_divide_is_named():
    mesh = sharding.make_mesh(SIZES)
    sharding.check_divides({"batch": (8, sharding.ROWS), "heads": (6, "tensor")}, mesh)
    with pytest.raises(ValueError, match=r"batch = 6 cannot be divided .* 4 shards over mesh axis \('data', 'fsdp'\)"):
        sharding.check_divides({"heads": (6, "tensor"), "batch": (6, sharding.ROWS)}, mesh)
    with pytest.raises(ValueError, match=r"heads = 5 cannot be divided into 2 shards over mesh axis tensor"):
        sharding.check_divides({"heads": (5, "tensor")}, mesh)


def test_each_device_gets_its_rows_and_its_part_of_the_sequence():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "context": 2, "tensor": 1})
    tokens = np.arange(4 * 6, dtype=np.int32).reshape(4, 6)
    crops = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
    arrays = sharding.put_rows({"tokens": tokens, "crops": crops}, mesh)
    for name, array in (("tokens", tokens), ("crops", crops)):
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    for shard in arrays["tokens"].addressable_shards:
        d, f, c, _ = np.argwhere(mesh.devices == shard.device)[0]
        np.testing.assert_array_equal(shard.data, tokens[2 * d + f : 2 * d + f + 1, 3 * c : 3 * c + 3])


def test_an_axis_may_take_part_of_a_torus_axis():
    mesh = sharding.make_mesh({"data": 1, "fsdp": 8, "context": 2, "tensor": 1}, slices(1, "v5e:4x4"))
    pairs = mesh.devices.reshape(8, 2)
    assert all(sum(abs(x - y) for x, y in zip(a.coords, b.coords, strict=True)) == 1 for a, b in pairs)
