"""Schedules, clipping and state of the optimizer."""

import dataclasses
import math

import jax
import numpy as np
import optax
import pytest

from molmo2_jax import sharding
from molmo2_jax.train.optimizer import OptimConfig, make_optimizer, schedule, schedules
from molmo2_jax.train.parameter_groups import GroupConfig, assign_groups, group_norms

STEPS = 110
C = OptimConfig(
    groups={"a": GroupConfig(r"a/.*", 1e-3, 10), "b": GroupConfig(r"b/.*", 2e-2, 0)},
    frozen=r"ice",
    b1=0.9,
    b2=0.95,
    eps=1e-6,
    weight_decay=0.0,
    clip=1.0,
    end_lr=0.1,
)
ASSIGNED = assign_groups(("a/w", "a/scale", "b/w", "ice"), C.groups, C.frozen)


def draw(seed, **scales):
    """{name: array} of the trainable parameters, "a" and "b" each with its own scale."""
    rng = np.random.default_rng(seed)
    shapes = {"a/w": (8, 16), "a/scale": (16,), "b/w": (16, 8)}
    return {name: (scales[name[0]] * rng.normal(size=shape)).astype("f") for name, shape in shapes.items()}


def replaced(**changes):
    return dataclasses.replace(C, **changes)


def test_the_learning_rate_in_numbers():
    lr = schedule(C.groups["a"], STEPS, 0.1)
    got = [float(lr(count)) for count in (0, 1, 9, 59, 109, 110, 5000)]
    #      the first update is one warm-up step up; half way down; the end, and it stays
    assert got == pytest.approx([1e-4, 2e-4, 1e-3, 5.5e-4, 1e-4, 1e-4, 1e-4], rel=1e-5)


@pytest.mark.parametrize(("warmup", "steps"), [(10, 110), (0, 50), (1, 50), (200, 2000), (100, 50)])
def test_the_learning_rate_is_the_reference_formula(warmup, steps):
    def reference(s):
        if s < warmup:
            return 3e-4 * s / warmup
        if s >= steps:
            return 3e-5
        return 3e-5 + 27e-5 * (1 + math.cos(math.pi * (s - warmup) / (steps - warmup))) / 2

    got = schedule(GroupConfig(".*", 3e-4, warmup), steps, 0.1)(np.arange(steps + 20))
    # The reference computes the rate of a step after it counted the step.
    np.testing.assert_allclose(got, [reference(count + 1) for count in range(steps + 20)], rtol=1e-4)


def test_every_group_has_its_own_schedule():
    rates = schedules(C, STEPS)
    assert {group: float(rate(0)) for group, rate in rates.items()} == pytest.approx({"a": 1e-4, "b": 2e-2}, rel=1e-3)
    last = {group: float(rate(STEPS - 1)) for group, rate in rates.items()}
    assert last == pytest.approx({"a": 1e-4, "b": 2e-3}, rel=1e-5)


def updates(c, gradients, params):
    """What the optimizer adds to the parameters, for each gradient in turn."""
    optimizer = make_optimizer(c, ASSIGNED, STEPS)
    state, out = optimizer.init(params), []
    for grads in gradients:
        new, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, new)
        out.append(new)
    return out


def by_hand(c, group, gradients, params):
    """AdamW of one group alone, on gradients scaled to the norm `clip` where they are longer."""
    mine = [name for name in params if name.startswith(f"{group}/")]
    lr = schedule(c.groups[group], STEPS, c.end_lr)
    adamw = optax.adamw(lr, b1=c.b1, b2=c.b2, eps=c.eps, weight_decay=c.weight_decay)
    params = {name: params[name] for name in mine}
    state, out = adamw.init(params), []
    for grads in gradients:
        norm = math.sqrt(sum(float((grads[name].astype("f8") ** 2).sum()) for name in mine))
        scale = np.float32(min(1.0, c.clip / norm))
        new, state = adamw.update({name: grads[name] * scale for name in mine}, state, params)
        params = optax.apply_updates(params, new)
        out.append(new)
    return out


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_group_is_clipped_by_its_own_norm(weight_decay):
    c, params = replaced(weight_decay=weight_decay), draw(0, a=1.0, b=1.0)
    gradients = [draw(seed, a=1e4 * seed, b=1e-3 * seed) for seed in (1, 2, 3)]
    got = updates(c, gradients, params)
    for group in C.groups:
        for mine, want in zip(got, by_hand(c, group, gradients, params), strict=True):
            for name, update in want.items():
                np.testing.assert_allclose(mine[name], update, rtol=1e-4, atol=1e-9, err_msg=name)


def test_a_huge_gradient_of_one_group_does_not_reach_another():
    params = draw(0, a=1.0, b=1.0)
    calm, wild = ([draw(seed, a=a, b=0.01) for seed in (1, 2)] for a in (0.01, 1e6))
    for one, other in zip(updates(C, calm, params), updates(C, wild, params), strict=True):
        np.testing.assert_array_equal(one["b/w"], other["b/w"])
        assert (np.asarray(one["a/w"]) != np.asarray(other["a/w"])).any()


def test_the_first_update_is_a_warm_up_step_long():
    (first,) = updates(C, [draw(1, a=1.0, b=1.0)], draw(0, a=1.0, b=1.0))
    # Adam's first update is the sign of the gradient, times the learning rate.
    assert np.abs(first["a/w"]).max() == pytest.approx(1e-3 / 10, rel=1e-2)


def test_a_gradient_of_zeros_moves_nothing():
    zeros = jax.tree.map(np.zeros_like, draw(0, a=1.0, b=1.0))
    assert not any(np.any(u) for new in updates(C, [zeros, zeros], draw(0, a=1.0, b=1.0)) for u in new.values())


def test_frozen_parameters_have_no_optimizer_state():
    params = draw(0, a=1.0, b=1.0)
    state = make_optimizer(C, ASSIGNED, STEPS).init(params)
    arrays = [(jax.tree_util.keystr(path), x) for path, x in jax.tree.leaves_with_path(state) if x.ndim]
    for name, p in params.items():
        own = [path for path, x in arrays if f"'{name}'" in path and x.shape == p.shape]
        assert len(own) == 2, (name, own)  # both moments, in one group
    assert len(arrays) == 2 * len(params)


def test_norms_and_updates_do_not_depend_on_the_mesh():
    params, grads = draw(0, a=1.0, b=1.0), draw(1, a=3.0, b=0.01)
    optimizer = make_optimizer(C, ASSIGNED, STEPS)

    @jax.jit
    def step(params, grads):
        norms = group_norms(grads, ASSIGNED)
        return norms, optimizer.update(grads, optimizer.init(params), params)[0]

    norms, new = step(params, grads)
    assert norms.keys() == C.groups.keys()
    flat = np.concatenate([grads["a/w"].reshape(-1), grads["a/scale"]])
    assert float(norms["a"]) == pytest.approx(np.linalg.norm(flat), rel=1e-6)
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "context": 1, "tensor": 2})
    axes = {"a/w": ("embed", "mlp"), "a/scale": ("norm",), "b/w": ("mlp", "embed")}
    specs = {name: jax.NamedSharding(mesh, sharding.stored(a, len(a))) for name, a in axes.items()}
    with jax.set_mesh(mesh):
        sharded_norms, sharded = step(*jax.device_put((params, grads), (specs, specs)))
    assert all(sharded[name].sharding == specs[name] for name in specs)
    for got, want in zip(jax.tree.leaves((sharded_norms, sharded)), jax.tree.leaves((norms, new)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
