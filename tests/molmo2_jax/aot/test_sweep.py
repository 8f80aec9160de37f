"""Meshes, stages, the log of trials, and a trial as a process."""

import dataclasses
import importlib.util
import json
import subprocess
import sys

import jax
import pytest

from data_pipelines.config import ConfigError
from molmo2_jax.aot import sweep, topology
from molmo2_jax.aot.chips import Chip
from molmo2_jax.aot.sweep import Trial
from molmo2_jax.train.config import TrainConfig, read
from molmo2_jax.train.setup import mesh_test
from molmo2_jax.weights.checkpoint_files import to_json
from tests.molmo2_jax.aot.programs import V5E, V5P
from tests.molmo2_jax.train import small_run
from tests.molmo2_jax.train.recipe import experiment

PARAMETERS = 8_700_000_000
AXES = ("data", "fsdp", "context", "tensor")


def config(preset="molmo2_8b", **row) -> TrainConfig:
    row = {"seq_len": 16_384, "crops": 128, "pooled": 14_336} | row
    return small_run.config(batch=128, model__preset=preset, data__row=row)


def meshes(c: TrainConfig, chip=V5P, chips=64) -> list[sweep.Overrides]:
    _, fits = mesh_test(c, jax.devices()[0])
    return list(sweep.meshes(fits, PARAMETERS, chip, chips))


def shapes(c: TrainConfig, chip: Chip = V5P, chips: int = 64) -> set[tuple[int, ...]]:
    return {tuple(m[f"mesh.{axis}"] for axis in AXES) for m in meshes(c, chip, chips)}


def test_meshes_use_all_chips_and_divide_everything():
    found = shapes(config())
    assert {(1, 64, 1, 1), (1, 16, 4, 1), (1, 8, 1, 8), (2, 32, 1, 1)} <= found
    assert all(d * f * c * t == 64 for d, f, c, t in found)
    assert (1, 2, 32, 1) not in found and (1, 4, 1, 16) not in found


def test_what_does_not_divide_is_not_tried():
    assert {f * d for d, f, c, t in shapes(config(), chips=256)} <= {1, 2, 4, 8, 16, 32, 64, 128}  # rows of a batch
    assert {c for d, f, c, t in shapes(config(crops=126))} == {1, 2}
    assert {t for d, f, c, t in shapes(config("molmo2_o_7b"))} == {1, 2}  # 100,278 base tokens


def test_state_that_does_not_fit_is_not_tried():
    least = PARAMETERS * 12 / V5E.hbm  # devices that have to share it
    assert {f * t for d, f, c, t in shapes(config(), chip=V5E)} == {8, 16, 32, 64} and 4 < least < 8
    assert (64, 1, 1, 1) in shapes(config(), chip=dataclasses.replace(V5P, hbm=1e12))


def test_a_mesh_overrides_the_sizes_of_its_axes_alone():
    for m in meshes(config()):
        assert m.keys() == {f"mesh.{axis}" for axis in AXES}


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_stage_with_tpu_kernels_is_swept():
    c = read(experiment("stage2_sft", "8b").to_dict())
    count, fits = mesh_test(c, topology.devices("v5p:2x2x1")[0])
    assert count == pytest.approx(PARAMETERS, rel=0.01)
    found = list(sweep.meshes(fits, count, V5P, 64))
    assert {"mesh.fsdp": 64, "mesh.context": 1} in [{k: m[k] for k in ("mesh.fsdp", "mesh.context")} for m in found]
    assert meshes(c) == []  # the kernels do not run on a CPU


TIMES = {  # mesh, remat -> (peak, seconds)
    ("a", "full"): (10, 5.0),
    ("b", "full"): (20, 4.0),
    ("c", "full"): (99, 1.0),
    ("b", "dots"): (99, 2.0),
    ("b", "out"): (40, 3.0),
}


def fake(tried):
    def run(overrides):
        tried.append(dict(overrides))
        peak, seconds = TIMES[overrides["mesh"], overrides.get("remat", "full")]
        return Trial(dict(overrides), fits=peak < 50, step_seconds=seconds, peak=peak)

    return run


def test_the_fastest_that_fits_is_kept_from_stage_to_stage():
    tried = []
    stages = [[{"mesh": m} for m in "abc"], [{"remat": r} for r in ("full", "dots", "out")]]
    trials = sweep.sweep(stages, fake(tried))
    assert trials[0].overrides == {"mesh": "b", "remat": "out"}
    assert [t.step_seconds for t in trials if t.fits] == [3.0, 4.0, 4.0, 5.0]
    assert tried[3:] == [{"mesh": "b", "remat": r} for r in ("full", "dots", "out")]


def test_without_a_trial_that_fits_the_smallest_is_best():
    order = [
        Trial({}, fits=False, peak=70),
        Trial({}, fits=False, peak=90),
        Trial({}),
        Trial({}, error="exit status 1: x"),
    ]
    assert sorted([order[n] for n in (2, 0, 3, 1)], key=Trial.rank) == order


def test_meshes_are_tried_with_the_config_s_other_values():
    c = small_run.config()
    mesh, remat, vit, microbatches = sweep.stages(c.model, [{"mesh.fsdp": 4}], batch=6, microbatches=2)
    assert mesh == [{"mesh.fsdp": 4, "model.remat": c.model.remat, "model.vit_remat": "none", "microbatches": 2}]
    assert {x["model.remat"] for x in remat} == {x["model.vit_remat"] for x in vit} >= {"none", "full", "dots"}
    assert microbatches == [{"microbatches": 1}, {"microbatches": 2}]  # 4 and 8 do not divide 6


def test_nothing_is_compiled_twice():
    tried = []
    sweep.sweep([[{"mesh": "a", "remat": "full"}], [{"remat": "full"}], [{"mesh": "b"}]], fake(tried))
    assert tried == [{"mesh": "a", "remat": "full"}, {"mesh": "b", "remat": "full"}]


def test_an_interrupted_sweep_continues(tmp_path):
    stages = [[{"mesh": m} for m in "abc"], [{"remat": r} for r in ("full", "dots", "out")]]
    want, tried = sweep.sweep(stages, fake([])), []
    run, log = fake(tried), sweep.TrialLog(tmp_path / "sweep.json", to_json(config()), "v5p:2x2x1")

    def stopped(overrides):
        if len(tried) == 2:
            raise KeyboardInterrupt
        log.add(run(overrides))
        return log.trials[-1]

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(stages, stopped, log.trials)
    log.add(Trial({"mesh": "c"}, error="exit status -9: "))
    again = sweep.TrialLog(tmp_path / "sweep.json", to_json(config()), "v5p:2x2x1")
    assert [t.overrides for t in again.trials] == [{"mesh": "a"}, {"mesh": "b"}]
    assert sweep.sweep(stages, run, again.trials) == want
    assert [t["mesh"] for t in tried] == ["a", "b", "c", "b", "b", "b"]
    for other, topology_name in ((config(), "v5p:2x2x2"), (config(crops=64), "v5p:2x2x1")):
        with pytest.raises(
            ConfigError, match=r"sweep\.json belongs to a sweep of another config or topology; choose another"
        ):
            sweep.TrialLog(tmp_path / "sweep.json", to_json(other), topology_name)


@pytest.mark.parametrize("status", [0, 3])
def test_a_trial_is_a_process_that_writes_a_report(monkeypatch, status):
    commands = []

    def run(command, **_):
        commands.append(command)
        folder = next(a.removeprefix("--out=") for a in command if a.startswith("--out="))
        report = {
            "fits": status == 0,
            "step_seconds": 2.5,
            "mfu": 0.5,
            "exposed_seconds": 0.25,
            "compile_seconds": 90.0,
        }
        with open(f"{folder}/report.json", "w") as file:
            json.dump(report | {"memory": {"peak": 17} if status == 0 else {}}, file)
        return subprocess.CompletedProcess(command, status, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    trial = sweep.compile_in_subprocess(["--config=a.py", "--topology=v5e:2x2"], {"mesh.fsdp": 4})
    assert trial == Trial({"mesh.fsdp": 4}, status == 0, 2.5, 0.5, 0.25, 17 if status == 0 else 0, 90.0)
    assert commands[0][:4] == [sys.executable, "-m", "molmo2_jax.cli", "aot"]
    assert commands[0][4:7] == ["--config=a.py", "--topology=v5e:2x2", "--config.mesh.fsdp=4"]


def test_a_trial_that_fails_says_why(monkeypatch):
    err = "noise\nmolmo2 aot: the compiler rejects the step: INTERNAL: x\nmore noise\n"
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", err))
    trial = sweep.compile_in_subprocess([], {"mesh.fsdp": 4})
    assert trial.error == "exit status 1: molmo2 aot: the compiler rejects the step: INTERNAL: x"


def test_the_table_has_one_line_per_trial():
    trials = [
        Trial({"mesh.fsdp": 64}, True, 2.0, 0.5, 0.1, 2**34),
        Trial({"mesh.fsdp": 1}),
        Trial({}, error="exit status 1: x"),
    ]
    assert sweep.table(trials).splitlines() == [
        "   2.000 s  MFU  50.0%    16.0 GiB  fsdp=64",
        "            does not fit  fsdp=1",
        "                  failed  : exit status 1: x",
    ]
