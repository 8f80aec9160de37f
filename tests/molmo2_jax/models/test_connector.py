"""Gathering patches and adding visual tokens with the sequence sharded over `context`: shards pool their own crops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.models.connector import add_visual_tokens, gather_patches

B, S, D, C, P, G = 2, 16, 4, 4, 9, 8


@pytest.mark.parametrize("context", [1, 2, 4])
def test_visual_tokens_reach_their_slots_from_any_shard(context):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, S, D)).astype(np.float32)
    features = rng.normal(size=(B, C, P, D)).astype(np.float32)
    pooling = rng.integers(-1, C // context * P, (B, G, 9)).astype(np.int32)  # patches of the token's own shard
    slots = np.stack([rng.permutation(S)[:G] for _ in range(B)]).astype(np.int32)
    slots[:, -1] = S  # unused

    want = x.copy()
    for b in range(B):
        for g in range(G - 1):
            shard = g // (G // context)
            own = features[b].reshape(context, -1, D)[shard]
            want[b, slots[b, g]] += own[pooling[b, g][pooling[b, g] >= 0]].sum(0)

    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1) | {"context": context}, jax.devices()[:context])
    with jax.set_mesh(mesh):
        arrays = sharding.put_rows({"x": x, "features": features, "pooling": pooling, "slots": slots}, mesh)

        @jax.jit
        def run(x, features, pooling, slots):
            return add_visual_tokens(x, jnp.sum(gather_patches(features, pooling), axis=2), slots)

        got = np.asarray(run(**arrays))
    np.testing.assert_allclose(got, want, atol=1e-5)
