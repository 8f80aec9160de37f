"""A step in microbatches gives the loss and gradients of the whole batch."""

import dataclasses
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import structure as parameters
from molmo2_jax.train.config import read
from molmo2_jax.train.optimizer import make_optimizer, schedules
from molmo2_jax.train.parameter_groups import assign_groups
from molmo2_jax.train.setup import check_fits
from molmo2_jax.train.step import accumulate, jit_step, make_state, make_step, split_rows
from tests.molmo2_jax.models.small import KINDS, RUN, SHAPE, random_weights, rows
from tests.molmo2_jax.train.recipe import experiment
from tests.molmo2_jax.train.small_run import config

KIND = "qwen3_untied"
C = dataclasses.replace(read(experiment("overfit_video_point").to_dict()), seed=3, steps=100, batch=8, z_loss=1e-2)
# Chunks of the loss are shared over context; two of 24 are not as long as a row.
C = dataclasses.replace(C, model=dataclasses.replace(RUN, context="ring", loss_chunk=24))
ONE = (1, 1, 1, 1)
EIGHT = (1, 2, 2, 2)


def mesh_of(sizes):
    return sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), jax.devices()[: int(np.prod(sizes))])


def batch(context):
    """Eight rows of very different weights, one of them 0. Half of the visual tokens pool the second crop."""
    row = rows(KINDS[KIND], batch=8)
    row["loss_weights"] *= np.array([1, 3, 0, 0.1, 2, 1, 10, 0.5], "f")[:, None]
    crop = np.minimum(row["pooling"], 728)
    if context == 1:
        crop[:, 6:] += np.where(crop[:, 6:] >= 0, 729, 0)
    return row | {"pooling": crop}


@functools.cache
def one_step(sizes, parts):
    """(gradients and parameters, metrics) of one step, as numpy, and the step compiled."""
    mesh = mesh_of(sizes)
    with jax.set_mesh(mesh):
        s = parameters.structure(KINDS[KIND])
        assigned = assign_groups(s.shapes, C.optim.groups, C.optim.frozen)
        optimizer = make_optimizer(C.optim, assigned, C.steps)
        params = jax.device_put(random_weights(s.shapes), {name: a.sharding for name, a in s.abstract(mesh).items()})
        state, rows = make_state(params, assigned, optimizer), sharding.put_rows(batch(mesh.shape["context"]), mesh)
        rates = schedules(C.optim, C.steps)
        step = make_step(s, C.model, assigned, optimizer, rates, seed=C.seed, microbatches=parts, z_loss=C.z_loss)
        compiled = jit_step(step, mesh, C.compiler).lower(state, rows).compile()
        state, metrics = compiled(state, rows)
    # The first moment after one step is a tenth of the clipped gradient.
    leaves = [x for x in jax.tree.leaves(state.optimizer, is_leaf=is_adam) if is_adam(x)]
    grads = {name: x for adam in leaves for name, x in adam.mu.items() if isinstance(x, jax.Array)}
    assert grads.keys() == state.trainable.keys()
    trees, metrics = jax.tree.map(np.asarray, ((grads, state.trainable), metrics))
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    return trees, metrics, compiled, held


def is_adam(x):
    return isinstance(x, optax.ScaleByAdamState)


@pytest.mark.parametrize(("sizes", "parts"), [(ONE, 4), (EIGHT, 2)], ids=["1 device", "8 devices"])
def test_parts_give_the_loss_the_gradients_and_the_metrics_of_the_whole(sizes, parts):
    whole_trees, whole_metrics, *_ = one_step(ONE, 1)
    trees, metrics, *_ = one_step(sizes, parts)
    for name, want in whole_metrics.items():
        assert metrics[name] == pytest.approx(want, rel=1e-5 if "norm" in name else 1e-6), name
    for tree, want in zip(trees, whole_trees, strict=True):
        for name in want:
            # The gradient of a bias of keys is zero except for rounding: it moves all scores of a query alike.
            scale = np.abs(want[name.replace("/k/b", "/q/b")]).max()
            assert scale > 0, name
            np.testing.assert_allclose(tree[name], want[name], atol=2e-5 * scale, err_msg=name)


def test_the_state_is_updated_in_place():
    *_, compiled, held = one_step(EIGHT, 2)
    assert compiled.memory_analysis().alias_size_in_bytes >= held


def test_no_row_is_gathered_and_only_embeddings_are_exchanged():
    program = one_step(EIGHT, 2)[2].as_text()
    moved = re.findall(r"= (.*?) (all-gather|all-to-all)\(.*op_name=\"([^\"]*)", program)
    lengths = [dims.split(",") for what, _, _ in moved for dims in re.findall(r"\[([\d,]*)\]", what)]
    tokens = str(SHAPE.seq_len)
    assert not [dims for dims in lengths if tokens in dims]
    assert lengths and all("all_to_all" in name for _, kind, name in moved if kind == "all-to-all")


def test_every_part_draws_its_own_dropout():
    with jax.set_mesh(mesh_of(ONE)):
        rows, key = {"tokens": jnp.zeros((4, 2))}, jax.random.key(0)
        sums = accumulate(lambda trainable, rows, key: jax.random.uniform(key, (2,)), 4, {}, rows, key)
        draws = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(jax.random.split(key, 4))
    assert len(np.unique(draws)) == 8
    np.testing.assert_allclose(sums, draws.sum(0), rtol=1e-6)


def test_rows_stay_on_their_devices():
    mesh = mesh_of((1, 2, 2, 1))
    tokens = np.arange(8 * 6, dtype=np.int32).reshape(8, 6)
    with jax.set_mesh(mesh):
        placed = sharding.put_rows({"tokens": tokens, "crops": np.zeros((8, 0, 3), "u1")}, mesh)
        split = jax.jit(lambda rows: split_rows(rows, 2))
        parts, program = split(placed), split.lower(placed).compile().as_text()
    assert parts["crops"].shape == (2, 4, 0, 3)
    np.testing.assert_array_equal(parts["tokens"], tokens.reshape(2, 2, 2, 6).swapaxes(0, 1).reshape(2, 4, 6))
    assert not [name for name in ("collective", "all-", "reduce-scatter") if name in program]


def test_a_batch_that_cannot_be_divided_is_named():
    mesh = mesh_of((2, 2, 1, 1))
    for parts, message in ((3, "batch = 8 cannot be divided into microbatches = 3"), (4, "batch / microbatches = 2 ")):
        with pytest.raises(ValueError, match=f"^{message}"):
            check_fits(config(batch=8, microbatches=parts), KINDS[KIND], mesh, "cpu")


class Jitted(Exception):
    """The options that jit was called with."""


@pytest.mark.parametrize(("platform", "want"), [("tpu", {"xla_tpu_a": "1"}), ("cpu", None)])
def test_compiler_options_are_for_tpus(monkeypatch, platform, want):
    def jit(step, **options):
        raise Jitted(options)

    monkeypatch.setattr(jax, "jit", jit)
    device = types.SimpleNamespace(platform=platform)
    mesh = types.SimpleNamespace(devices=np.array([device], object))
    with pytest.raises(Jitted) as jitted:
        jit_step(None, mesh, {"xla_tpu_a": "1"})
    assert jitted.value.args[0] == {"donate_argnums": 0, "compiler_options": want}
