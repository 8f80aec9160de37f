"""One training step: a pure function of (state, rows)."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from molmo2_jax import sharding
from molmo2_jax.models.molmo2 import Row
from molmo2_jax.models.run_config import RunConfig
from molmo2_jax.models.structure import Params, Structure
from molmo2_jax.ops.loss import LossSums
from molmo2_jax.train.parameter_groups import FROZEN, group_norms


class State(NamedTuple):
    """What a step updates. `frozen` does not change; it is here to be donated and sharded with the rest."""

    step: jax.Array  # int32: updates done
    trainable: Params
    frozen: Params
    optimizer: optax.OptState

    @property
    def params(self) -> Params:
        return self.trainable | self.frozen


def make_state(params: Params, assigned: Mapping[str, str], optimizer: optax.GradientTransformation) -> State:
    """The state at step 0. Optimizer state has the parameters' shardings."""
    trainable = {name: p for name, p in params.items() if assigned[name] != FROZEN}
    frozen = {name: p for name, p in params.items() if assigned[name] == FROZEN}
    return State(jnp.zeros((), jnp.int32), trainable, frozen, optimizer.init(trainable))


def abstract_state(
    s: Structure, mesh: jax.sharding.Mesh, assigned: Mapping[str, str], optimizer: optax.GradientTransformation
) -> State:
    """Shapes and shardings of `make_state`'s result, without allocating it: the target of restoring a checkpoint."""
    shapes = jax.eval_shape(lambda params: make_state(params, assigned, optimizer), s.abstract(mesh))

    def with_sharding(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = sharding.REPLICATED if x.sharding is None else x.sharding.spec  # scalars carry none
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(mesh, spec))

    return jax.tree.map(with_sharding, shapes)


def jit_step(step: Callable, mesh: jax.sharding.Mesh, compiler: Mapping[str, str]) -> jax.stages.Wrapped:
    """`step` as a run compiles it: with its state donated and, on TPUs, with the `compiler` options.

    The devices of `mesh` may be ahead-of-time targets, for programs that are only compiled.
    """
    options = dict(compiler) if mesh.devices.flat[0].platform == "tpu" else None
    return jax.jit(step, donate_argnums=0, compiler_options=options)


def make_step(
    s: Structure,
    run: RunConfig,
    assigned: Mapping[str, str],
    optimizer: optax.GradientTransformation,
    schedules: Mapping[str, optax.Schedule],
    *,
    seed: int,
    microbatches: int,
    z_loss: float,
) -> Callable[[State, Row], tuple[State, dict[str, jax.Array]]]:
    """`state, metrics = step(state, rows)`; metrics are float32 scalars. `jit_step` compiles it.

    loss = sum(w CE)/sum(w) + z_loss * sum(w logsumexp^2)/sum(w). The sums are over the global batch, for any number of
    `microbatches`.

    Args:
      assigned: {parameter: its group or FROZEN}.
      schedules: the learning rate of each group, for the metrics.
    """

    # By these named scopes, and by those of the model's modules, `molmo2 aot` reports the step in parts.
    @jax.named_scope("optimizer")
    def step(state: State, rows: Row) -> tuple[State, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        weight = jnp.sum(rows["loss_weights"])
        weight = jnp.where(weight > 0, weight, 1.0)  # a batch without loss weights changes nothing

        def loss_of(trainable: Params, rows: Row, key: jax.Array) -> tuple[jax.Array, LossSums]:
            with jax.named_scope("model"):
                sums = s.model(trainable | state.frozen).losses(rows, run, key)
            with jax.named_scope("loss"):
                return (sums.cross_entropy + z_loss * sums.z) / weight, sums

        value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
        (_, sums), grads = accumulate(value_and_grad, microbatches, state.trainable, rows, key)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        cross_entropy, z_term = sums.cross_entropy / weight, z_loss * sums.z / weight
        metrics = {
            "loss": cross_entropy + z_term,
            "cross_entropy": cross_entropy,
            "z_loss": z_term,
            "accuracy": sums.correct / weight,
            "loss_tokens": sums.tokens,
        }
        for group, norm in group_norms(grads, assigned).items():
            metrics[f"grad_norm/{group}"] = norm
            metrics[f"lr/{group}"] = schedules[group](state.step)
        return State(state.step + 1, trainable, state.frozen, optimizer_state), metrics

    return step


def accumulate(f: Callable, microbatches: int, trainable: Params, rows: Row, key: jax.Array) -> Any:
    """The sum of f(trainable, rows, key) over the microbatches; gradients are summed in the parameters' shards."""
    if microbatches == 1:
        return f(trainable, rows, key)
    parts = split_rows(rows, microbatches), jax.random.split(key, microbatches)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(f, trainable, *jax.tree.map(lambda x: x[0], parts)))

    def add(total: Any, part: tuple[Row, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, f(trainable, *part)), None

    return jax.lax.scan(add, zeros, parts)[0]


def split_rows(rows: Row, parts: int) -> dict[str, jax.Array]:
    """[B, ...] -> [parts, B / parts, ...]: each part has rows of every device, so that no row is communicated.

    4 rows over 2 devices, 2 parts    device 0: r0 r1, device 1: r2 r3    ->    part 0: r0 r2, part 1: r1 r3
    """
    return {name: _split_local(x, parts) for name, x in rows.items()}


def _split_local(x: jax.Array, parts: int) -> jax.Array:
    spec = jax.typeof(x).sharding.spec

    def local(x: jax.Array) -> jax.Array:
        return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])

    return jax.shard_map(local, in_specs=spec, out_specs=jax.P(None, *spec))(x)
