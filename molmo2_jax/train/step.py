"""One training step: a pure function of (state, rows)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from molmo2_jax import sharding
from molmo2_jax.models.molmo2 import Row
from molmo2_jax.models.params import Params, Structure
from molmo2_jax.train import optim
from molmo2_jax.train.config import TrainConfig


class State(NamedTuple):
    """What a step changes. `frozen` stays as it is; it is here so that it can be donated and sharded with the rest."""

    step: jax.Array  # int32: updates done
    trainable: Params
    frozen: Params
    optimizer: optax.OptState

    @property
    def params(self) -> Params:
        return self.trainable | self.frozen


def make_state(params: Params, assigned: dict[str, str], optimizer: optax.GradientTransformation) -> State:
    """A state at step 0; optimizer state takes the parameters' shardings."""
    trainable = {name: p for name, p in params.items() if assigned[name] != optim.FROZEN}
    frozen = {name: p for name, p in params.items() if assigned[name] == optim.FROZEN}
    return State(jnp.zeros((), jnp.int32), trainable, frozen, optimizer.init(trainable))


def abstract_state(
    s: Structure, mesh: jax.sharding.Mesh, assigned: dict[str, str], optimizer: optax.GradientTransformation
) -> State:
    """Shapes and shardings of `make_state`'s result, without memory: what a checkpoint is restored into."""
    shapes = jax.eval_shape(lambda params: make_state(params, assigned, optimizer), s.abstract(mesh))

    def place(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = sharding.WHOLE if x.sharding is None else x.sharding.spec  # scalars carry none
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(mesh, spec))

    return jax.tree.map(place, shapes)


def jit_step(
    s: Structure,
    c: TrainConfig,
    assigned: dict[str, str],
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> jax.stages.Wrapped:
    """`make_step` compiled as a run does: the state is donated, and on TPUs the config's compiler options hold.

    `mesh` may be of devices that are not there, for programs that are only compiled.
    """
    options = c.compiler if mesh.devices.flat[0].platform == "tpu" else None
    return jax.jit(make_step(s, c, assigned, optimizer), donate_argnums=0, compiler_options=options)


def make_step(
    s: Structure, c: TrainConfig, assigned: dict[str, str], optimizer: optax.GradientTransformation
) -> Callable[[State, Row], tuple[State, dict[str, jax.Array]]]:
    """`state, metrics = step(state, rows)`; metrics are float32 scalars. The caller jits it with `state` donated.

    loss = sum(w CE)/sum(w) + z_loss * sum(w logsumexp^2)/sum(w), sums over the global batch, whatever `microbatches`.
    """

    def step(state: State, rows: Row):
        key = jax.random.fold_in(jax.random.key(c.seed), state.step)
        weight = jnp.sum(rows["loss_weights"])
        weight = jnp.where(weight > 0, weight, 1.0)  # a batch of nothing but failed media learns nothing

        def loss_of(trainable, rows, key):
            sums = s.model(trainable | state.frozen).losses(rows, c.model, key)
            return (sums.cross_entropy + c.z_loss * sums.z) / weight, sums

        (_, sums), grads = accumulate(jax.value_and_grad(loss_of, has_aux=True), c, state.trainable, rows, key)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        cross_entropy, z_loss = sums.cross_entropy / weight, c.z_loss * sums.z / weight
        metrics = {
            "loss": cross_entropy + z_loss,
            "cross_entropy": cross_entropy,
            "z_loss": z_loss,
            "accuracy": sums.correct / weight,
            "loss_tokens": sums.tokens,
        }
        for group, norm in optim.group_norms(grads, assigned).items():
            metrics[f"grad_norm/{group}"] = norm
            metrics[f"lr/{group}"] = optim.schedule(c.optim.groups[group], c.steps, c.optim.end_lr)(state.step)
        return State(state.step + 1, trainable, state.frozen, optimizer_state), metrics

    return step


def accumulate(f: Callable, c: TrainConfig, trainable: Params, rows: Row, key: jax.Array):
    """The sum of f(trainable, rows, key) over the microbatches; sums of gradients lie in the parameters' shards."""
    if c.microbatches == 1:
        return f(trainable, rows, key)
    parts = microbatches(rows, c.microbatches), jax.random.split(key, c.microbatches)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(f, trainable, *jax.tree.map(lambda x: x[0], parts)))

    def add(total, part):
        return jax.tree.map(jnp.add, total, f(trainable, *part)), None

    return jax.lax.scan(add, zeros, parts)[0]


def microbatches(rows: Row, parts: int) -> dict[str, jax.Array]:
    """[B, ...] -> [parts, B / parts, ...]: a part of each device's own rows, so that no row travels.

    4 rows over 2 devices, 2 parts    device 0: r0 r1, device 1: r2 r3    ->    part 0: r0 r2, part 1: r1 r3
    """
    return {name: _cut_rows(x, parts) for name, x in rows.items()}


def _cut_rows(x: jax.Array, parts: int) -> jax.Array:
    spec = jax.typeof(x).sharding.spec

    def local(x):
        return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])

    return jax.shard_map(local, in_specs=spec, out_specs=jax.P(None, *spec))(x)
