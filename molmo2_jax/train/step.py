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


def make_step(
    s: Structure, c: TrainConfig, assigned: dict[str, str], optimizer: optax.GradientTransformation
) -> Callable[[State, Row], tuple[State, dict[str, jax.Array]]]:
    """`state, metrics = step(state, rows)`; metrics are float32 scalars. The caller jits it with `state` donated.

    loss = sum(w CE)/sum(w) + z_loss * sum(w logsumexp^2)/sum(w), sums over the global batch.
    """

    def step(state: State, rows: Row):
        key = jax.random.fold_in(jax.random.key(c.seed), state.step)

        def loss_of(trainable):
            sums = s.model(trainable | state.frozen).losses(rows, c.model, key)
            weight = jnp.where(sums.weight > 0, sums.weight, 1.0)  # a batch of nothing but failed media learns nothing
            return (sums.cross_entropy + c.z_loss * sums.z) / weight, sums

        (loss, sums), grads = jax.value_and_grad(loss_of, has_aux=True)(state.trainable)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        weight = jnp.where(sums.weight > 0, sums.weight, 1.0)
        metrics = {
            "loss": loss,
            "cross_entropy": sums.cross_entropy / weight,
            "z_loss": c.z_loss * sums.z / weight,
            "accuracy": sums.correct / weight,
            "loss_tokens": sums.tokens,
        }
        for group, norm in optim.group_norms(grads, assigned).items():
            metrics[f"grad_norm/{group}"] = norm
            metrics[f"lr/{group}"] = optim.schedule(c.optim.groups[group], c.steps, c.optim.end_lr)(state.step)
        return State(state.step + 1, trainable, state.frozen, optimizer_state), metrics

    return step
