"""Whole runs of a small model on real clips: killed, stopped, continued, given bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.config import ConfigError
from data_pipelines.loading.data import Data
from data_pipelines.records.problems import RecordError
from molmo2_jax import sharding
from molmo2_jax.models import config as models
from molmo2_jax.models import structure
from molmo2_jax.train import distributed, loop
from molmo2_jax.weights.checkpoint_files import CheckpointError, load_params
from tests.molmo2_jax.train.small_run import config, dataset, use_devices
from tests.xla_flags import FEW_OPTIMISATIONS

ROOT = Path(__file__).parents[3]
STEPS = 10


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    use_devices(monkeypatch, 1)


def lines(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def steps_done(workdir):
    try:
        return max((line["step"] for line in lines(workdir)), default=0)
    except json.JSONDecodeError:  # a line that is being written
        return 0


def saving(step):
    return lambda workdir: any((workdir / "checkpoints").glob(f"{step}.*"))


def run(workdir, until=None):
    """The run in a process of its own; SIGKILL as soon as until(workdir) holds. Its exit status."""
    env = os.environ | {"XLA_FLAGS": FEW_OPTIMISATIONS}
    command = [sys.executable, "-m", "tests.molmo2_jax.train.small_run", str(workdir), str(STEPS)]
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        while process.poll() is None:
            if until is not None and until(workdir):
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.002)
    finally:
        process.kill()
    return process.returncode


def saved_state(workdir, step=STEPS):
    """All parameters and the data position of a checkpoint."""
    folder = workdir / "checkpoints" / str(step)
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1))
    with jax.set_mesh(mesh):
        s = structure.structure(models.preset("small"))
        values = {name: np.asarray(x) for name, x in load_params(folder, s, mesh).items()}
    (data,) = (folder / "data").glob("process_0*")
    return values, json.loads(data.read_text())


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_bit_equal_to_one_that_is_not(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run(straight) == 0
    kill_points = [
        lambda workdir: steps_done(workdir) >= 2,  # before any checkpoint
        lambda workdir: saving(4)(workdir) or steps_done(workdir) >= 5,  # while one is being written, as a rule
        lambda workdir: steps_done(workdir) >= 6,  # between two
        lambda workdir: steps_done(workdir) >= 9,  # between the last one and the end
    ]
    for until in kill_points:
        assert run(killed, until) == -signal.SIGKILL
    assert run(killed) == 0

    (want, want_data), (got, got_data) = saved_state(straight), saved_state(killed)
    assert got_data == want_data
    for name, x in want.items():
        assert x.tobytes() == got[name].tobytes(), name
    for a, b in zip(lines(straight), lines(killed), strict=True):
        timing = {"tokens_per_second", "step_seconds", "mfu"}
        assert {k: v for k, v in a.items() if k not in timing} == {k: v for k, v in b.items() if k not in timing}
    log = (tmp_path / "killed.log").read_text()
    assert "continuing from step 4" in log and "continuing from step 8" in log
    assert not any((killed / "checkpoints").glob("*tmp*"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir after one step."""
    workdir = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        use_devices(patch, 1)
        loop.train(config(steps=1), workdir)
    return workdir


def test_a_line_of_metrics_describes_the_step(trained):
    (line,) = lines(trained)
    for group in ("connector", "vit", "llm"):
        assert line[f"grad_norm/{group}"] > 0 and line[f"lr/{group}"] == pytest.approx(5e-4)
    assert line["loss"] == pytest.approx(line["cross_entropy"] + line["z_loss"])
    assert 10 < line["loss"] < 14  # ln 151,936 = 11.9
    assert line["loss_tokens"] > 50 and 0.3 < line["row_fill"] <= 1
    assert line["tokens_per_second"] > 0 and 0 < line["mfu"] < 1 and line["data/failed"] == 0
    assert any(trained.glob("events.out.tfevents.*"))


def test_sigterm_ends_the_step_and_leaves_a_checkpoint(tmp_path, monkeypatch):
    put_rows = sharding.put_rows
    calls = []

    def stop_in_the_second(rows, mesh):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return put_rows(rows, mesh)

    monkeypatch.setattr(sharding, "put_rows", stop_in_the_second)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(loop.Preempted, match="checkpoint of step 2"):
        loop.train(config(), tmp_path / "w")
    assert (tmp_path / "w" / "checkpoints" / "2" / "params").is_dir()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_metric_that_is_not_finite_stops_the_run_before_anything_is_reported(value):
    reported = []
    loop.finish_step(lambda *step: reported.append(step), 3, {"loss": jnp.float32(0.5)}, "batch", False)
    metrics = {"loss": jnp.float32(value), "lr/llm": jnp.float32(1), "grad_norm/llm": jnp.float32(value)}
    with pytest.raises(FloatingPointError, match=r"^step 4: grad_norm/llm, loss not finite; the last checkpoint"):
        loop.finish_step(lambda *step: reported.append(step), 4, metrics, "batch", True)
    assert reported == [(3, {"loss": 0.5}, "batch", False)]


def test_a_loss_that_is_not_finite_stops_the_run_by_its_step(tmp_path):
    broken = config(
        steps=4,
        checkpoint__every=1,
        optim__groups={"all": {"pattern": r"(?!llm/embed/base).*", "lr": 1e25, "warmup": 1}},
    )
    with pytest.raises(FloatingPointError, match=r"step 2: .*loss.* not finite"):
        loop.train(broken, tmp_path / "w")
    assert [d.name for d in (tmp_path / "w" / "checkpoints").iterdir()] == ["1"]


def test_a_checkpoint_of_another_model_is_refused_before_anything_is_drawn(trained, monkeypatch):
    def never(*_):
        raise AssertionError("parameters were drawn")

    monkeypatch.setattr(loop, "initial_params", never)
    with pytest.raises(CheckpointError, match=r"checkpoints/1 holds another model .*llm\.width: 16 -> 128"):
        loop.train(config(model__preset="tiny"), trained)
    assert [d.name for d in (trained / "checkpoints").iterdir()] == ["1"]


def test_changed_config_values_are_logged_when_a_run_continues(trained, capfd):
    loop.train(config(steps=1, data__loader__prefetch=3), trained)
    log = capfd.readouterr().err
    assert "continuing from step 1" in log and "data.loader.prefetch: 2 -> 3" in log


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 1}, r"batch: 2 -> 1"),
        ({"data__loader__pool": 4}, r"data\.loader\.pool: 3 -> 4"),
        ({"optim__groups__vit__pattern": r"vit/.*|nothing"}, r"optim\.groups\.vit\.pattern"),
    ],
)
def test_a_run_does_not_continue_where_a_value_that_its_state_depends_on_has_changed(trained, changes, message):
    with pytest.raises(CheckpointError, match=f"checkpoints/1: a run cannot continue with a changed {message}"):
        loop.train(config(**changes), trained)


@pytest.mark.parametrize("sharers", [[0], [0, 3]])
def test_only_processes_that_share_rows_exchange_failures(tmp_path, monkeypatch, sharers):
    loaders = []

    def loader(self, **options):
        loaders.append(options)
        raise InterruptedError

    monkeypatch.setattr(sharding, "row_sharers", lambda batch, mesh: sharers)
    monkeypatch.setattr(Data, "loader", loader)
    monkeypatch.setattr(distributed, "Exchange", lambda name, group: (name, group))
    for _ in range(2):
        with pytest.raises(InterruptedError):
            loop.train(config(), tmp_path / "run")
    one, two = (options["exchange"] for options in loaders)
    if sharers == [0]:
        assert one is None and two is None
    else:
        assert one[1] == two[1] == sharers and one[0] != two[0]  # two runs do not share an exchange


def test_a_remote_workdir_is_refused_not_taken_for_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="gs://bucket/run: the workdir must be a local or mounted folder"):
        loop.train(config(), "gs://bucket/run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"checkpoint__keep": 0}, ConfigError, "checkpoint.keep = 0 must be at least 1"),
        ({"model__residual_dropout": 1.5}, ConfigError, "model.residual_dropout = 1.5 must be"),
        ({"model__preset": "molmo9"}, ConfigError, "'molmo9' is unknown"),
        ({"mesh": {"data": 2, "fsdp": 1, "context": 1, "tensor": 1}}, ConfigError, "needs 2 devices, but there are 1"),
        ({"mesh": {"data": 1}}, ConfigError, "needs exactly the axes"),
        ({"model__attention": "flash"}, ConfigError, "model.attention = 'flash' is unknown"),
        ({"model__remat": "most"}, ConfigError, "model.remat = 'most' is unknown"),
        ({"model__dtype": "float8"}, ConfigError, "model.dtype = 'float8' is unknown"),
        ({"data__vocab_size": 100_278}, ConfigError, "config.data.vocab_size is unknown"),
        ({"optim__frozen": "nothing"}, ConfigError, "'llm/embed/base' must match one group, it matches none"),
        (
            {"data__mixture__groups": {"a": {"rate": 1.0, "datasets": {"b": dataset("/nowhere/a.jsonl")}}}},
            RecordError,
            "dataset b of the mixture: /nowhere/a.jsonl: not found",
        ),
        ({"data__row__crops": 4}, RecordError, "street/car.*needs 5 crops, a row has crops = 4"),
        ({"data__tokenizer": "/nowhere"}, FileNotFoundError, "tokenizer '/nowhere'"),
    ],
)
def test_a_config_that_cannot_be_used_is_refused_before_the_first_step(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        loop.train(config(**changes), tmp_path / "w")
    assert not (tmp_path / "w").exists()
