"""Token embeddings: each device looks tokens up in its shard of the table."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from molmo2_jax import sharding
from molmo2_jax.models.llm import Embedding
from tests.molmo2_jax.models.small import small

C = small().llm
ONE = (1, 1, 1, 1)
TOKENS = np.random.default_rng(0).integers(0, C.vocab + C.new_vocab, (4, 8)).astype("i4")
TOKENS[0, :3] = 0, C.vocab - 1, C.vocab  # the ends of both tables


def on(sizes):
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), jax.devices()[: int(np.prod(sizes))])
    return jax.set_mesh(mesh)


def split_and_put(embed, tokens):
    return nnx.split(embed), sharding.put_rows({"tokens": tokens}, jax.sharding.get_mesh())["tokens"]


def look_up(tokens, dtype=jnp.float32, slope=None):
    """(embedded tokens, gradients of sum(slope * embedded)) on the current mesh."""
    (graph, tables), tokens = split_and_put(Embedding(C, nnx.Rngs(0)), tokens)

    @jax.jit
    def run(tables):
        def total(tables):
            x = nnx.merge(graph, tables)(tokens, dtype)
            return jnp.sum(x.astype(jnp.float32) * (1.0 if slope is None else slope)), x

        (_, x), grads = jax.value_and_grad(total, has_aux=True)(tables)
        return x, grads

    x, grads = run(tables)
    assert x.dtype == dtype and jax.typeof(x).sharding.spec == sharding.B_S_D
    for p, g in zip(jax.tree.leaves(tables), jax.tree.leaves(grads), strict=True):
        assert g.dtype == jnp.float32 and g.sharding.is_equivalent_to(p.sharding, 2)
    return tuple(np.asarray(a, np.float32) for a in (x, tables["base"][...], tables["new"][...])), grads


@pytest.mark.parametrize("sizes", [ONE, (2, 2, 1, 2), (1, 4, 2, 1), (1, 1, 2, 4)])
def test_every_token_gets_its_row_and_every_row_its_gradients(sizes):
    slope = np.random.default_rng(1).normal(size=(*TOKENS.shape, C.width)).astype("f")
    with on(sizes):
        (x, base, new), grads = look_up(TOKENS, slope=slope)
    table = np.concatenate([base, new])
    np.testing.assert_array_equal(x, table[TOKENS])
    want = np.zeros_like(table)
    np.add.at(want, TOKENS, slope)
    got = np.concatenate([grads["base"][...], grads["new"][...]])
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_gradients_of_bfloat16_lookups_are_summed_in_float32():
    tokens = np.where(np.arange(4096) % 2, 5, C.vocab + 5).reshape(4, 1024).astype("i4")
    with on((1, 2, 2, 2)):
        _, grads = look_up(tokens, jnp.bfloat16)
    for table in ("base", "new"):
        np.testing.assert_array_equal(np.asarray(grads[table][...])[5], 2048)  # a bfloat16 sum stops growing at 256


def test_no_table_is_sent():
    with on((1, 4, 1, 2)):
        (graph, tables), tokens = split_and_put(Embedding(C, nnx.Rngs(0)), TOKENS)
        run = jax.jit(lambda tables: nnx.merge(graph, tables)(tokens, jnp.float32))
        program = run.lower(tables).compile().as_text()
    moved = re.findall(r"= (.*) (all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)\(", program)
    assert {kind for _, kind in moved} == {"all-gather", "all-reduce", "all-to-all"}
    assert not [what for what, _ in moved if f"[{C.vocab}" in what or f"[{C.vocab // 2}" in what]
