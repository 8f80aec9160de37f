"""What a layer saves for the backward pass, in bytes, and what it computes again, in matmuls."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from molmo2_jax import sharding
from molmo2_jax.models import config
from molmo2_jax.models.llm import Llm
from molmo2_jax.models.structure import structure
from molmo2_jax.models.vit import Vit
from molmo2_jax.ops.attention import mask
from molmo2_jax.ops.attention.attention import attention
from tests.molmo2_jax.models.small import KINDS, RUN, rows

ONE = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])


def operations(jaxpr):
    """Names of all operations of a program and of the programs within it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from operations(inner)


@functools.cache
def matmuls_and_loops(kind, part, remat):
    """How many the gradient of the decoder or of the ViT has. A loop is over the tiles of attention."""
    with jax.set_mesh(ONE):
        s, row = structure(KINDS[kind]), sharding.put_rows(rows(KINDS[kind]), ONE)
        x_BSD = jnp.zeros((*row["tokens"].shape, s.config.llm.width), out_sharding=sharding.B_S_D)

        def decode(p):
            return s.model(p).hidden(x_BSD, row, dataclasses.replace(RUN, remat=remat)).sum()

        def encode(p):
            return s.model(p).vit(row["crops"], jnp.float32, remat=remat, attention="dense").sum()

        program = jax.make_jaxpr(jax.grad({"llm": decode, "vit": encode}[part]))(s.abstract(ONE))
    names = list(operations(program.jaxpr))
    return names.count("dot_general"), names.count("while")


def recomputed(kind, part, remat):
    """(matmuls, loops) beyond those with everything saved."""
    saved, again = (matmuls_and_loops(kind, part, policy) for policy in ("none", remat))
    return again[0] - saved[0], again[1] - saved[1]


@pytest.mark.parametrize(
    ("remat", "qwen", "olmo", "vit"),
    [
        # Attention is a loop of two matmuls. Qwen's backward pass needs no output of the mlp, OLMo's normalises it.
        ("full", (8, 1), (9, 1), 7),
        ("attention", (6, 0), (7, 0), 5),
        ("qkv", (3, 0), (4, 0), 2),
        ("out", (2, 0), (2, 0), 1),
        ("gate", (1, 0), (1, 0), 0),
        ("dots", (0, 0), (0, 0), 0),
    ],
)
def test_a_layer_recomputes_what_its_policy_does_not_save(remat, qwen, olmo, vit):
    assert recomputed("qwen3_tied", "llm", remat) == qwen
    assert recomputed("olmo3", "llm", remat) == olmo
    assert recomputed("qwen3_tied", "vit", remat)[0] == 2 * vit  # its layers run in two scans


def saved_bytes(build, x, call, tokens):
    """Bytes per token and layer that the forward pass of 2 layers saves, of arrays with a dimension of `tokens`."""
    with jax.set_mesh(ONE):
        graph, params = nnx.split(nnx.eval_shape(build))
        backward = jax.eval_shape(lambda p, x: jax.vjp(lambda p: call(nnx.merge(graph, p), x), p)[1], params, x)
    stacked = [a for a in jax.tree.leaves(backward) if a.ndim > 2 and a.shape[0] == 2 and tokens in a.shape]
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in stacked) / tokens / 2


@pytest.mark.parametrize(
    ("remat", "llm", "vit"),
    [
        ("full", 8_192, 2_304),
        ("attention", 16_512, 4_608),
        ("qkv", 28_800, 11_520),
        ("out", 36_992, 13_824),
        ("gate", 61_568, 22_432),
        ("dots", 86_144, 22_432),
    ],
)
def test_a_layer_of_8b_saves_the_bytes_of_the_table(remat, llm, vit):
    S, c = 256, dataclasses.replace(config.QWEN3_8B, layers=2, vocab=512)
    v = dataclasses.replace(config.SIGLIP2_SO400M, layers=2, feature_layers=(1,))

    def decode(model, x_BSD):
        positions_BS = jnp.zeros((1, S), jnp.int32, out_sharding=sharding.B_S)
        vis = mask.row_visibility(positions_BS + S, positions_BS)

        def attend(q, k, v, state):
            return attention(q, k, v, vis, implementation="blockwise", context="all_gather"), state

        return model(x_BSD, positions_BS, attend, remat=remat)[0]

    x_BSD = jax.ShapeDtypeStruct((1, S, c.width), jnp.bfloat16, sharding=jax.NamedSharding(ONE, sharding.B_S_D))
    crops = jax.ShapeDtypeStruct((1, 1, 729, 588), jnp.uint8, sharding=jax.NamedSharding(ONE, sharding.B_C_P_D))

    def encode(model, crops):
        return model(crops, jnp.bfloat16, remat=remat, attention="dense")

    assert saved_bytes(lambda: Llm(c, nnx.Rngs(0)), x_BSD, decode, S) == llm
    assert saved_bytes(lambda: Vit(v, nnx.Rngs(0)), crops, encode, 736) == vit
