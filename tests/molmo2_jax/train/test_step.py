"""One training step of a small model: its loss, its gradients, the parameters it updates and its metrics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import structure as parameters
from molmo2_jax.models.molmo2 import logits
from molmo2_jax.train.config import read
from molmo2_jax.train.optimizer import make_optimizer, schedules
from molmo2_jax.train.parameter_groups import assign_groups
from molmo2_jax.train.step import abstract_state, make_state, make_step
from tests.molmo2_jax.models.small import KINDS, RUN, random_weights, rows
from tests.molmo2_jax.train.recipe import experiment

KIND = "qwen3_tied"  # the head is the base embedding, which is frozen
BASE = "llm/embed/base"
MESH = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])
C = dataclasses.replace(
    read(experiment("overfit_video_point").to_dict()), seed=3, steps=100, batch=2, z_loss=1e-2, model=RUN
)

# The first element of the optimizer's state is the last gradient, as AdamW gets it.
remember = optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params), lambda grads, state, params: (grads, grads)
)


class Trainer:
    """A model, its first state and its compiled step."""

    def __init__(self, c):
        with jax.set_mesh(MESH):
            self.structure = parameters.structure(KINDS[KIND])
            self.assigned = assign_groups(self.structure.shapes, c.optim.groups, c.optim.frozen)
            optimizer = optax.chain(remember, make_optimizer(c.optim, self.assigned, c.steps))
            params = {
                n: jax.device_put(a, MESH.devices.item()) for n, a in random_weights(self.structure.shapes).items()
            }
            where = {n: a.sharding for n, a in self.structure.abstract(MESH).items()}
            self.state = make_state(jax.device_put(params, where), self.assigned, optimizer)
            step = make_step(
                self.structure,
                c.model,
                self.assigned,
                optimizer,
                schedules(c.optim, c.steps),
                seed=c.seed,
                microbatches=c.microbatches,
                z_loss=c.z_loss,
            )
            self._step = jax.jit(step)

    def step(self, row, state=None):
        """(state, metrics, gradients) as numpy, from the first state or another one."""
        with jax.set_mesh(MESH):
            state, metrics = self._step(state or self.state, sharding.put_rows(row, MESH))
        return state, {name: float(x) for name, x in metrics.items()}, jax.tree.map(np.asarray, state.optimizer[0])


@pytest.fixture(scope="module")
def trainer():
    return Trainer(C)


@pytest.fixture(scope="module")
def batch():
    row = rows(KINDS[KIND])
    row["loss_weights"][1] *= 3.0  # the second row weighs more
    return row


def test_the_loss_is_that_of_all_logits_at_once(trainer, batch):
    with jax.set_mesh(MESH):
        model = trainer.structure.model(trainer.state.params)
        row = sharding.put_rows(batch, MESH)
        scores = np.asarray(
            jax.jit(lambda row: logits(model, model.hidden(model.embed(row, RUN), row, RUN)))(row), "f8"
        )
    weights, targets = batch["loss_weights"].astype("f8"), batch["targets"]
    lse = np.log(np.exp(scores).sum(-1))
    entropy = lse - np.take_along_axis(scores, targets[..., None], -1)[..., 0]
    want = {
        "cross_entropy": (weights * entropy).sum() / weights.sum(),
        "z_loss": 1e-2 * (weights * lse**2).sum() / weights.sum(),
        "accuracy": (weights * (scores.argmax(-1) == targets)).sum() / weights.sum(),
        "loss_tokens": np.count_nonzero(weights),
    }
    want["loss"] = want["cross_entropy"] + want["z_loss"]
    _, got, _ = trainer.step(batch)
    assert {name: got[name] for name in want} == pytest.approx(want, rel=1e-5)


def test_rows_of_a_batch_count_by_their_weight(trainer, batch):
    alone = []
    for number in (0, 1):
        weights = np.zeros_like(batch["loss_weights"])
        weights[number] = batch["loss_weights"][number]
        _, metrics, grads = trainer.step(batch | {"loss_weights": weights})
        alone.append((weights.sum(), metrics["loss"], grads))
    (w0, loss0, grads0), (w1, loss1, grads1) = alone
    _, metrics, grads = trainer.step(batch)
    assert metrics["loss"] == pytest.approx((w0 * loss0 + w1 * loss1) / (w0 + w1), rel=1e-5)
    largest = max(np.abs(g).max() for g in grads.values())
    for name, g in grads.items():
        want = (w0 * grads0[name] + w1 * grads1[name]) / (w0 + w1)
        np.testing.assert_allclose(g, want, rtol=1e-3, atol=1e-6 * largest, err_msg=name)


def test_a_batch_without_loss_weights_changes_nothing(trainer, batch):
    state, metrics, grads = trainer.step(batch | {"loss_weights": np.zeros_like(batch["loss_weights"])})
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["loss"] == metrics["loss_tokens"] == metrics["accuracy"] == 0
    assert not any(g.any() for g in grads.values())
    for name, p in trainer.state.params.items():
        np.testing.assert_array_equal(state.params[name], p, err_msg=name)
    assert state.step == 1


def test_all_but_frozen_parameters_change(trainer, batch):
    state = trainer.state
    for _ in range(3):
        state, _, grads = trainer.step(batch, state)
    assert state.step == 3 and state.frozen.keys() == {BASE}
    assert BASE not in grads and BASE not in str(jax.tree.structure(state.optimizer))
    same = {n for n, p in trainer.state.params.items() if np.array_equal(p, state.params[n])}
    assert same == {BASE}
    assert {p.dtype for p in state.params.values()} == {np.dtype("float32")}


def test_the_metrics_say_what_the_step_did(trainer, batch):
    state, first, grads = trainer.step(batch)
    _, second, _ = trainer.step(batch, state)
    whole = {"loss", "cross_entropy", "z_loss", "accuracy", "loss_tokens"}
    assert first.keys() == whole | {f"{x}/{group}" for x in ("grad_norm", "lr") for group in C.optim.groups}
    for group, g in C.optim.groups.items():
        norm = np.sqrt(sum((x.astype("f8") ** 2).sum() for n, x in grads.items() if trainer.assigned[n] == group))
        assert first[f"grad_norm/{group}"] == pytest.approx(norm, rel=1e-4)
        rates = [m[f"lr/{group}"] for m in (first, second)]
        assert rates == pytest.approx([g.lr / g.warmup, 2 * g.lr / g.warmup], rel=1e-6)


def test_a_step_done_again_gives_the_same_bits(trainer, batch):
    once, again = trainer.step(batch), trainer.step(batch)
    for a, b in zip(jax.tree.leaves(once), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_is_drawn_anew_each_step_and_the_same_when_replayed():
    still = {name: dataclasses.replace(g, lr=0.0) for name, g in C.optim.groups.items()}
    run = dataclasses.replace(RUN, residual_dropout=0.2, response_dropout=0.2)
    trainer = Trainer(dataclasses.replace(C, model=run, optim=dataclasses.replace(C.optim, groups=still)))
    row = rows(KINDS[KIND])
    row |= {"crops": row["crops"][:, :0]}  # text alone, quicker to compile
    first, a, _ = trainer.step(row)
    second, b, _ = trainer.step(row, first)
    for name, p in trainer.state.params.items():
        np.testing.assert_array_equal(second.params[name], p, err_msg=name)
    assert a["loss"] != b["loss"]
    assert trainer.step(row)[1] == a
    assert trainer.step(row, first)[1] == b


def test_optimizer_state_is_sharded_as_its_parameters_are():
    mesh = sharding.make_mesh({"data": 1, "fsdp": 2, "context": 2, "tensor": 2})
    with jax.set_mesh(mesh):
        s = parameters.structure(KINDS[KIND])
        assigned = assign_groups(s.shapes, C.optim.groups, C.optim.frozen)
        optimizer = make_optimizer(C.optim, assigned, C.steps)
        where = {name: a.sharding for name, a in s.abstract(mesh).items()}
        params = jax.device_put(random_weights(s.shapes), where)
        state = make_state(params, assigned, optimizer)
        expected = abstract_state(s, mesh, assigned, optimizer)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for (path, x), want in zip(jax.tree.leaves_with_path(state), jax.tree.leaves(expected), strict=True):
        assert (x.shape, x.dtype) == (want.shape, want.dtype), path
        if x.ndim:  # scalars are replicated
            assert x.sharding.is_equivalent_to(want.sharding, x.ndim), path
    for path, x in jax.tree.leaves_with_path(state.optimizer):
        for name in where:
            if f"'{name}'" in jax.tree_util.keystr(path):
                assert x.sharding.is_equivalent_to(where[name], x.ndim), path
