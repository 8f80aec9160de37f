"""The training loop. One loop for all stages; a stage is a config.

How a run begins:
  1. workdir has a finished checkpoint of this model: the run continues from it, exactly.
  2. it has none: step 0, with parameters from the sources in `init_from` of the config: checkpoints, or random ones.
"""

import contextlib
import itertools
import math
import pathlib
import sys
from collections.abc import Callable, Mapping

import jax

from data_pipelines.config import ConfigError
from data_pipelines.packing.schema import FIELDS
from molmo2_jax import sharding
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.ops.attention.token_order import arrange
from molmo2_jax.train import distributed
from molmo2_jax.train.checkpoint import Checkpoints
from molmo2_jax.train.config import TrainConfig
from molmo2_jax.train.metrics import MetricWriter
from molmo2_jax.train.setup import Setup, open_data, set_up
from molmo2_jax.train.step import State, make_state
from molmo2_jax.train.step_log import StepLog, log
from molmo2_jax.train.throughput import BatchStats, Throughput
from molmo2_jax.weights.checkpoint_files import has_step, load_architecture, newest_step, to_json
from molmo2_jax.weights.hf.fetch import clear_copies
from molmo2_jax.weights.init_from import InitConfig, initial_params

_RUN_NUMBERS = itertools.count()  # of this process; they keep the exchanges of two runs apart


class Preempted(Exception):
    """The run got SIGTERM and saved a checkpoint of `step`."""

    def __init__(self, step: int):
        super().__init__(f"SIGTERM: stopped with a checkpoint of step {step}")
        self.step = step


def train(c: TrainConfig, workdir: str | pathlib.Path) -> State:
    """Trains to `c.steps` and returns the last state, which is also the newest checkpoint.

    Raises:
      ConfigError, CheckpointError, RecordError: before the first step, for a config or mesh that cannot be used, a
        checkpoint of another model, and records or media that cannot be used.
      FloatingPointError: the loss is not finite; the message names the step.
      FailureRateError: too many examples are unusable.
      Preempted: the process got SIGTERM.
    """
    workdir = _local_folder(workdir)
    setup = set_up(c, architecture=_saved_architecture(c.model.preset, workdir))
    opened = open_data(c, setup.architecture)
    log(opened.table)
    rows = sharding.local_rows(c.batch, setup.mesh)
    exchange = _exchange_with_sharers(c.batch, setup.mesh)
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(
            contextlib.closing(opened.loader(seed=c.seed, rows=rows, streams=c.batch, exchange=exchange))
        )
        stack.enter_context(jax.set_mesh(setup.mesh))
        state = _initial_state(setup, workdir, c.init_from, c.seed)
        checkpoints = stack.enter_context(
            contextlib.closing(Checkpoints(workdir, c.checkpoint, to_json(c), setup.architecture))
        )
        if state is None:
            state, changed = checkpoints.restore(setup.state, data)
            log(f"{workdir}: continuing from step {int(state.step)}" + "".join(f"\n  changed {d}" for d in changed))
        first = int(state.step)
        throughput = Throughput(setup.architecture, setup.mesh, rows)
        log(f"MFU is relative to {throughput.peak:.3g} FLOP/s ({throughput.source}, {setup.mesh.size} devices)")
        writer = MetricWriter(workdir, first_step=first, steps=c.steps)
        report = stack.enter_context(
            contextlib.closing(StepLog(writer, throughput, data.rates, log_every=c.log_every, steps=c.steps))
        )
        stop = stack.enter_context(distributed.StopSignal())
        pending = None  # the metrics of a step are fetched after the next step was dispatched
        for number in range(first + 1, c.steps + 1):
            batch = next(data)
            for failure in batch["failures"]:
                print(f"step {number}: {failure}", file=sys.stderr, flush=True)  # each process prints those of its rows
            fields = arrange({name: batch[name] for name in FIELDS}, c.model.token_order, c.mesh[sharding.CONTEXT])
            state, metrics = setup.step(state, sharding.put_rows(fields, setup.mesh))
            if pending is not None:
                finish_step(report, *pending)
            stopping = stop.reached(number)
            saving = stopping or number == c.steps or number % c.checkpoint.every == 0
            pending = (number, metrics, throughput.local_stats(batch), saving)
            if saving:
                finish_step(report, *pending)  # a state that is not finite must not become a checkpoint
                pending = None
                checkpoints.save(state, data)
            if stopping and number < c.steps:
                checkpoints.wait()
                raise Preempted(number)
        checkpoints.wait()
        return state


def finish_step(
    report: Callable, number: int, metrics: Mapping[str, jax.Array], batch: BatchStats, saving: bool
) -> None:
    """Waits for a step and reports it to `report`, a StepLog.

    Raises:
      FloatingPointError: a metric is NaN or infinite; raised in all processes.
    """
    values = {name: float(x) for name, x in jax.device_get(metrics).items()}
    bad = [name for name, x in values.items() if not math.isfinite(x)]
    if bad:
        raise FloatingPointError(f"step {number}: {', '.join(bad)} not finite; the last checkpoint is from before it")
    report(number, values, batch, saving)


def _local_folder(workdir: str | pathlib.Path) -> pathlib.Path:
    if "://" in str(workdir):
        raise ConfigError(f"--workdir={workdir}: the workdir must be a local or mounted folder; mount the bucket")
    return pathlib.Path(workdir)


def _saved_architecture(preset: str, workdir: pathlib.Path) -> Molmo2Config | None:
    """The architecture of the newest checkpoint, for a run that began from an "hf:" directory, which may be gone."""
    return load_architecture(newest_step(workdir)) if preset.startswith("hf:") and has_step(workdir) else None


def _exchange_with_sharers(batch: int, mesh: jax.sharding.Mesh) -> distributed.Exchange | None:
    """An exchange with the processes that share a row with this one; None if there are none."""
    sharers = sharding.row_sharers(batch, mesh)
    return distributed.Exchange(f"failures/{next(_RUN_NUMBERS)}", sharers) if len(sharers) > 1 else None


def _initial_state(setup: Setup, workdir: pathlib.Path, init_from: Mapping[str, InitConfig], seed: int) -> State | None:
    """The state at step 0; None if the workdir has a checkpoint to continue from.

    Raises:
      ConfigError: the processes see different newest steps. The first one raises it; otherwise they would deadlock.
    """
    newest = newest_step(workdir).name if has_step(workdir) else None
    seen = distributed.gather("newest step", newest)
    if seen and len(set(seen)) > 1:
        raise ConfigError(
            f"--workdir={workdir}: the newest checkpoint differs between processes: {seen}; "
            "mount one shared folder under the same path on every host"
        )
    if newest is not None:
        return None
    s = setup.structure
    params, table = initial_params(s, setup.mesh, init_from, seed)  # may raise, so nothing is written before
    clear_copies()
    shardings = jax.tree.map(lambda x: x.sharding, setup.state)
    make = jax.jit(
        lambda params: make_state(params, setup.assigned, setup.optimizer), out_shardings=shardings, donate_argnums=0
    )
    state = make(params)
    log(f"{workdir}: {s.count():,} parameters of {s.config.name}, seed {seed}\n{table}")
    return state
