"""The float32 sums of weight gradients: one result on CPUs and elsewhere, scattered as the weight is stored."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from molmo2_jax import sharding
from molmo2_jax.ops.gradient_reduction import merged_sum, scattered_sum, token_sum


def test_the_weight_gradients_of_cpus_and_other_devices_are_equal():
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 3, 5, 4)).astype("f"), rng.normal(size=(2, 3, 5, 2, 3)).astype("f")
    want = np.einsum("BCPD,BCPNH->DNH", x, dy)
    for weight_gradient in (token_sum, merged_sum):
        np.testing.assert_allclose(weight_gradient(x, dy, 3), want, atol=1e-5)


@pytest.mark.parametrize("stored", [P(sharding.FSDP, None), P(None, sharding.FSDP), P(None, None)], ids=str)
def test_a_sum_over_the_mesh_has_the_shards_of_its_weight(stored):
    sizes = {sharding.DATA: 2, sharding.FSDP: 4, sharding.CONTEXT: 1, sharding.TENSOR: 1}
    mesh = sharding.make_mesh({name: sizes[name] for name in sharding.MESH_AXES})
    parts = np.random.default_rng(0).normal(size=(8, 16, 12)).astype("f")  # one per device
    own = P((sharding.DATA, sharding.FSDP))

    def local(part):
        return scattered_sum(part[0], stored, over=(sharding.DATA, sharding.FSDP))

    with jax.set_mesh(mesh):
        total = jax.jit(jax.shard_map(local, in_specs=own, out_specs=stored))(
            jax.device_put(parts, jax.NamedSharding(mesh, own))
        )
    assert total.sharding.spec == stored
    np.testing.assert_allclose(total, parts.sum(0), atol=1e-5)
