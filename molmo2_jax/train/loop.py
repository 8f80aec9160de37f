"""The training loop. One loop for all stages; a stage is a config.

How a run begins:
  1. workdir has a finished checkpoint of this model: go on from it, exactly.
  2. it has none: step 0, with parameters from where the config's `init_from` says: other checkpoints, or fresh ones.
"""

import itertools
import pathlib
import sys
from collections.abc import Mapping

import jax
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.data import loader as loading
from molmo2_jax.data.schema import FIELDS
from molmo2_jax.data.token_order import arrange
from molmo2_jax.hf.fetch import forget_copies
from molmo2_jax.models import config as models
from molmo2_jax.models import params as parameters
from molmo2_jax.train import distributed, init_from, optim
from molmo2_jax.train.checkpoint import Checkpoints, has_step, load_architecture, newest_step
from molmo2_jax.train.checks import check_fits, check_values
from molmo2_jax.train.config import ConfigError, TrainConfig
from molmo2_jax.train.meter import Batch, Meter
from molmo2_jax.train.metrics import MetricWriter
from molmo2_jax.train.step import State, abstract_state, jit_step, make_state

_RUNS = itertools.count()  # of this process; what processes tell each other is filed under them


class Preempted(Exception):
    """SIGTERM came; everything up to `step` is in a checkpoint."""

    def __init__(self, step: int):
        super().__init__(f"SIGTERM: stopped with a checkpoint of step {step}")
        self.step = step


def say(text: str) -> None:
    """A line for the person who watches; stdout stays for results."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


def train(c: TrainConfig, workdir: str | pathlib.Path) -> State:
    """Trains to `c.steps` and returns the last state, which is also the newest checkpoint.

    Raises before the first step: ValueError (config, mesh, checkpoint of another model), RecordError (records, media).
    Raises later: FloatingPointError naming the step whose loss is not finite, Preempted, data errors past their rate.
    """
    if "://" in str(workdir):
        raise ConfigError(f"--workdir={workdir}: a local or mounted folder is needed; remote ones are not written yet")
    workdir = pathlib.Path(workdir)
    try:
        check_values(c)
        mesh = sharding.make_mesh(c.mesh)
        with jax.set_mesh(mesh):
            architecture = _architecture(c, workdir)
            check_fits(c, architecture, mesh)
            structure = parameters.structure(architecture)
        assigned = optim.assign_groups(structure.shapes, c.optim)
        init_from.sort_parameters(structure, c.init_from)
    except ValueError as error:
        raise ConfigError(f"config: {error}") from error
    opened = loading.Data(c.data)
    say(opened.table)
    sharers = sharding.row_sharers(c.batch, mesh)
    exchange = distributed.Exchange(f"failures/{next(_RUNS)}", sharers) if len(sharers) > 1 else None
    rows = sharding.local_rows(c.batch, mesh)
    data = opened.loader(seed=c.seed, rows=rows, streams=c.batch, exchange=exchange)
    try:
        with jax.set_mesh(mesh):
            return _train(c, workdir, structure, assigned, mesh, data)
    finally:
        data.close()


def _architecture(c: TrainConfig, workdir: pathlib.Path) -> models.Molmo2Config:
    """The preset's. A run that began from a directory's goes on with its checkpoint's: the directory may be gone."""
    if c.model.preset.startswith("hf:") and has_step(workdir):
        return load_architecture(newest_step(workdir))
    return init_from.architecture(c.model.preset)


def _train(c: TrainConfig, workdir, structure, assigned, mesh, data) -> State:
    architecture = structure.config
    optimizer = optim.make_optimizer(c.optim, assigned, c.steps)
    wanted = abstract_state(structure, mesh, assigned, optimizer)
    begin = not has_step(workdir)
    _check_shared(workdir, None if begin else newest_step(workdir).name)
    state = None
    if begin:
        params, table = init_from.initial(structure, mesh, c.init_from, c.seed)  # may fail: nothing is written yet
        forget_copies()
        place = {"out_shardings": jax.tree.map(lambda x: x.sharding, wanted), "donate_argnums": 0}
        state = jax.jit(lambda params: make_state(params, assigned, optimizer), **place)(params)
        say(f"{workdir}: {structure.count():,} parameters of {architecture.name}, seed {c.seed}\n{table}")
    checkpoints = Checkpoints(workdir, c.checkpoint)
    try:
        if state is None:
            state, changed = checkpoints.restore(wanted, data, c, architecture)
            say(f"{workdir}: going on from step {int(state.step)}" + "".join(f"\n  changed {d}" for d in changed))
        step = jit_step(structure, c, assigned, optimizer, mesh)
        return _run(c, workdir, architecture, mesh, data, checkpoints, state, step)
    finally:
        checkpoints.close()


def _check_shared(workdir: pathlib.Path, newest: str | None) -> None:
    """ConfigError, at the first process, when not all see the same newest step; the others would wait for ever."""
    seen = distributed.gather("newest step", newest)
    if seen and len(set(seen)) > 1:
        raise ConfigError(f"--workdir={workdir}: processes see the steps {seen} there; it must be one folder for all")


def _run(c: TrainConfig, workdir, architecture, mesh, data, checkpoints, state, step) -> State:
    first = int(state.step)
    meter = Meter(architecture, mesh, sharding.local_rows(c.batch, mesh))
    say(f"MFU is of {meter.peak:.3g} FLOP/s ({meter.source}, {mesh.size} devices)")
    report = _Report(c, MetricWriter(workdir, first_step=first, steps=c.steps), meter, data.rates)
    stop = distributed.StopSignal()
    pending = None  # metrics of a step are read when the next one is on its way
    try:
        for number in range(first + 1, c.steps + 1):
            rows = next(data)
            for failure in rows["failures"]:
                print(f"step {number}: {failure}", file=sys.stderr, flush=True)  # each process about its own rows
            fields = {name: rows[name] for name in FIELDS}
            placed = arrange(fields, c.model.token_order, mesh.shape[sharding.CONTEXT])
            state, metrics = step(state, sharding.put_rows(placed, mesh))
            if pending is not None:
                report(*pending)
            stopping = stop.reached(number)
            saving = stopping or number == c.steps or number % c.checkpoint.every == 0
            pending = (number, metrics, meter.batch(rows), saving)
            if saving:
                report(*pending)  # a state that is not finite must not become a checkpoint
                pending = None
                checkpoints.save(state, data, c, architecture)
            if stopping and number < c.steps:
                checkpoints.wait()
                raise Preempted(number)
        checkpoints.wait()
        return state
    finally:
        stop.restore()
        report.writer.close()


class _Report:
    """Writes down what a step did. All processes call it for the same steps; the first one writes."""

    def __init__(self, c: TrainConfig, writer: MetricWriter, meter: Meter, rates: Mapping[str, float]):
        self.writer = writer
        self._c, self._meter, self._rates = c, meter, rates

    def __call__(self, number: int, metrics: Mapping[str, jax.Array], batch: Batch, saving: bool) -> None:
        """Raises FloatingPointError, in all processes alike, when a metric is not finite."""
        values = {name: float(x) for name, x in jax.device_get(metrics).items()}
        bad = [name for name, x in values.items() if not np.isfinite(x)]
        if bad:
            raise FloatingPointError(
                f"step {number}: {', '.join(bad)} not finite; the last checkpoint is from before it"
            )
        self.writer.advance(number)
        seconds = self._meter.step_done()
        logging = number % self._c.log_every == 0 or number == self._c.steps
        whole = self._meter.whole(number, batch, seconds) if logging or saving else None
        if whole is None:
            return
        stats, counts = whole
        if logging:
            self.writer.write(number, values | stats)
        if saving:
            say(f"step {number}: drawn since step 0\n{counts.table(self._rates)}")
