"""The whole model with the sequence sharded over `context`: its loss, and the collectives of vision."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.models.structure import structure
from molmo2_jax.ops.attention.token_order import arrange
from tests.molmo2_jax.models.small import KINDS, RUN, random_weights, rows

KIND = "qwen3_untied"
CROPS = 4


def batch(shards):
    """Rows with four crops and three visual tokens of each; patch indices count within the crop's vision shard."""
    row = rows(KINDS[KIND])
    rng = np.random.default_rng(1)
    row["crops"] = rng.integers(0, 256, (2, CROPS, *row["crops"].shape[2:])).astype(np.uint8)
    crop_G = np.repeat(np.arange(CROPS) % (CROPS // shards), 3)
    own = row["pooling"] % 729 + 729 * crop_G[:, None]
    return row | {"pooling": np.where(row["pooling"] < 0, -1, own).astype(np.int32)}


def set_up(sizes, run):
    """(mesh, jitted step, weights, rows); `step(weights, rows)` returns loss and gradients."""
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), jax.devices()[: np.prod(sizes)])
    shards = mesh.shape[sharding.CONTEXT]
    with jax.set_mesh(mesh):
        s = structure(KINDS[KIND])
        params = jax.device_put(random_weights(s.shapes), {name: a.sharding for name, a in s.abstract(mesh).items()})
        row = sharding.put_rows(arrange(batch(shards), run.token_order, shards), mesh)

    def loss(params, row):
        sums = s.model(params).losses(row, run)
        return (sums.cross_entropy + 1e-4 * sums.z) / sums.weight

    return mesh, jax.jit(jax.value_and_grad(loss)), params, row


@functools.cache
def compiled(sizes, **changes):
    """(compiled step, loss, gradients) of RUN with `changes`."""
    mesh, step, params, row = set_up(sizes, dataclasses.replace(RUN, **changes))
    with jax.set_mesh(mesh):
        step = step.lower(params, row).compile()
        return step, *jax.tree.map(np.asarray, step(params, row))


CONTEXT_4 = {"sizes": (1, 1, 4, 1), "context": "ring", "token_order": "zigzag"}


def test_devices_along_context_give_the_loss_and_gradients_of_one():
    _, loss, grads = compiled((1, 1, 1, 1))
    _, other_loss, other = compiled(**CONTEXT_4)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    scales = {name: np.abs(g).max() for name, g in grads.items()}
    for name, g in grads.items():
        # Softmax ignores a constant added to all keys of a query: these gradients are rounding errors.
        scale = scales[name[:-1] + "w"] if name in ("vit/blocks/attn/k/b", "connector/k/b") else scales[name]
        np.testing.assert_allclose(other[name], g, rtol=0, atol=2e-5 * scale, err_msg=name)


COLLECTIVE = re.compile(r"= (.*) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
ALONE = re.compile(r"replica_groups=(\{\{0\}|\[\d+,1\]<=)")  # over a mesh axis of one device: sends nothing


def collectives(text):
    """{kind: shapes of its results, as "f32[2,12,32]"} of a compiled program."""
    found = {}
    for line in text.splitlines():
        if (op := COLLECTIVE.search(line)) and not ALONE.search(line):
            found.setdefault(op[2], set()).update(re.findall(r"\w+\[[\d,]*\]", op[1]))
    return found


def test_only_pooled_features_and_their_slots_are_gathered():
    c, S, G = KINDS[KIND], 64, 12
    found = collectives(compiled(**CONTEXT_4)[0].as_text())
    # The loss gathers its chunks of positions over context, and each device's part of the table's gradient.
    chunk = 4 * RUN.loss_chunk
    loss = {f"f32[{chunk},{c.llm.width}]", f"s32[{chunk}]", f"f32[{chunk}]", f"f32[{c.llm.vocab},{c.llm.width}]"}
    assert found["all-gather"] == {f"f32[2,{G},{c.llm.width}]", f"s32[2,{G}]"} | loss
    assert f"f32[2,{G // 4},{c.llm.width}]" in found["reduce-scatter"]  # their gradients return to their shards
    keys = c.llm.kv_heads * c.llm.head_dim
    assert found["collective-permute"] == {f"f32[2,{S // 4},{keys}]", f"s32[3,2,{S // 4}]"}
    assert found.keys() == {"all-gather", "all-reduce", "reduce-scatter", "collective-permute"}
    # Sums are of parameters' gradients and scalars, not of crops, patches or tokens of a row.
    rest = {tuple(int(n) for n in re.findall(r"\d+", shape.split("[")[1])) for shape in found["all-reduce"]}
    assert not {dims for dims in rest if dims[:1] == (2,) and {S, S // 4, CROPS, 1, G} & set(dims[1:2])}
