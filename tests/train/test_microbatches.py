"""A batch in parts teaches what it teaches at once."""

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
from molmo2_jax.models import params as parameters
from molmo2_jax.train import optim
from molmo2_jax.train.checks import check_fits
from molmo2_jax.train.config import read
from molmo2_jax.train.step import accumulate, jit_step, make_state, microbatches
from tests.models.small import KINDS, RUN, SHAPE, numbers, rows
from tests.train.recipe import experiment
from tests.train.small_run import config

KIND = "qwen3_untied"
C = dataclasses.replace(read(experiment("overfit_video_point").to_dict()), seed=3, steps=100, batch=8, z_loss=1e-2)
# Chunks of the loss are shared over context; two of 24 are not as long as a row.
C = dataclasses.replace(C, model=dataclasses.replace(RUN, context="ring", loss_chunk=24))
ONE = (1, 1, 1, 1)
EIGHT = (1, 2, 2, 2)


def mesh_of(sizes):
    return sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), jax.devices()[: int(np.prod(sizes))])


def batch(context):
    """Eight rows of weights far apart, one without any; the second half of the visual tokens is of the second crop."""
    row = rows(KINDS[KIND], batch=8)
    row["loss_weights"] *= np.array([1, 3, 0, 0.1, 2, 1, 10, 0.5], "f")[:, None]
    crop = np.minimum(row["pooling"], 728)
    if context == 1:
        crop[:, 6:] += np.where(crop[:, 6:] >= 0, 729, 0)
    return row | {"pooling": crop}


@functools.cache
def one_step(sizes, parts):
    """(gradients and parameters, metrics) of one step, as numpy, and the step compiled."""
    c, mesh = dataclasses.replace(C, microbatches=parts), mesh_of(sizes)
    with jax.set_mesh(mesh):
        s = parameters.structure(KINDS[KIND])
        assigned = optim.assign_groups(s.shapes, c.optim)
        optimizer = optim.make_optimizer(c.optim, assigned, c.steps)
        params = jax.device_put(numbers(s.shapes), {name: a.sharding for name, a in s.abstract(mesh).items()})
        state, rows = make_state(params, assigned, optimizer), sharding.put_rows(batch(mesh.shape["context"]), mesh)
        compiled = jit_step(s, c, assigned, optimizer, mesh).lower(state, rows).compile()
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
            # The gradient of a bias of keys is zero but for rounding: it moves all of a query's scores alike.
            scale = np.abs(want[name.replace("/k/b", "/q/b")]).max()
            assert scale > 0, name
            np.testing.assert_allclose(tree[name], want[name], atol=2e-5 * scale, err_msg=name)


def test_the_state_is_changed_where_it_lies():
    *_, compiled, held = one_step(EIGHT, 2)
    assert compiled.memory_analysis().alias_size_in_bytes >= held


def test_no_row_is_gathered_and_only_embeddings_are_exchanged():
    program = one_step(EIGHT, 2)[2].as_text()
    moved = re.findall(r"= (.*?) (all-gather|all-to-all)\(.*op_name=\"([^\"]*)", program)
    lengths = [dims.split(",") for what, _, _ in moved for dims in re.findall(r"\[([\d,]*)\]", what)]
    tokens = str(SHAPE.tokens)
    assert not [dims for dims in lengths if tokens in dims]
    assert lengths and all("all_to_all" in name for _, kind, name in moved if kind == "all-to-all")


def test_every_part_draws_its_own_dropout():
    c = dataclasses.replace(C, microbatches=4)
    with jax.set_mesh(mesh_of(ONE)):
        rows, key = {"tokens": jnp.zeros((4, 2))}, jax.random.key(0)
        sums = accumulate(lambda trainable, rows, key: jax.random.uniform(key, (2,)), c, {}, rows, key)
        draws = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(jax.random.split(key, 4))
    assert len(np.unique(draws)) == 8
    np.testing.assert_allclose(sums, draws.sum(0), rtol=1e-6)


def test_rows_stay_on_their_devices():
    mesh = mesh_of((1, 2, 2, 1))
    tokens = np.arange(8 * 6, dtype=np.int32).reshape(8, 6)
    with jax.set_mesh(mesh):
        placed = sharding.put_rows({"tokens": tokens, "crops": np.zeros((8, 0, 3), "u1")}, mesh)
        cut = jax.jit(lambda rows: microbatches(rows, 2))
        parts, program = cut(placed), cut.lower(placed).compile().as_text()
    assert parts["crops"].shape == (2, 4, 0, 3)
    np.testing.assert_array_equal(parts["tokens"], tokens.reshape(2, 2, 2, 6).swapaxes(0, 1).reshape(2, 4, 6))
    assert not [name for name in ("collective", "all-", "reduce-scatter") if name in program]


def test_a_batch_that_cannot_be_cut_is_named():
    mesh = mesh_of((2, 2, 1, 1))
    for parts, message in ((3, "batch = 8 cannot be cut into microbatches = 3"), (4, "batch / microbatches = 2 ")):
        with pytest.raises(ValueError, match=f"^{message}"):
            check_fits(config(batch=8, microbatches=parts), KINDS[KIND], mesh)


class Seen(Exception):
    """What jit was given."""


@pytest.mark.parametrize(("platform", "want"), [("tpu", {"xla_tpu_a": "1"}), ("cpu", None)])
def test_compiler_options_are_for_tpus(monkeypatch, platform, want):
    def jit(step, **options):
        raise Seen(options)

    monkeypatch.setattr(jax, "jit", jit)
    device = types.SimpleNamespace(platform=platform)
    mesh = types.SimpleNamespace(devices=np.array([device], object))
    with pytest.raises(Seen) as seen:
        jit_step(None, config(compiler={"xla_tpu_a": "1"}), {}, None, mesh)
    assert seen.value.args[0] == {"donate_argnums": 0, "compiler_options": want}
