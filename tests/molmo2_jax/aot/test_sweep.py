"""Which meshes are tried, what is kept, and what a trial is."""

import dataclasses
import json
import subprocess
import sys

import pytest

from molmo2_jax.aot import sweep
from molmo2_jax.aot.sweep import Trial
from molmo2_jax.models.config import PRESETS
from molmo2_jax.train.config import read
from data_pipelines.config import ConfigError
from tests.molmo2_jax.aot.programs import V5E, V5P
from tests.molmo2_jax.train import small_run
from tests.molmo2_jax.train.recipe import experiment

EIGHT_B, PARAMETERS = PRESETS["molmo2_8b"], 8_700_000_000


def config(**data):
    data = {"seq_len": 16_384, "crops": 128, "pooled": 14_336} | data
    return small_run.config(batch=128, **{f"data__{key}": value for key, value in data.items()})


def shapes(c, chip=V5P, chips=64, a=EIGHT_B) -> set[tuple[int, ...]]:
    found = sweep.meshes(c, a, PARAMETERS, chip, chips)
    return {tuple(m[f"mesh.{axis}"] for axis in ("data", "fsdp", "context", "tensor")) for m in found}


def test_meshes_use_all_chips_and_divide_everything():
    found = shapes(config())
    assert {(1, 64, 1, 1), (1, 16, 4, 1), (1, 8, 1, 8), (2, 32, 1, 1)} <= found
    assert all(d * f * c * t == 64 for d, f, c, t in found)
    assert (1, 2, 32, 1) not in found and (1, 4, 1, 16) not in found


def test_what_does_not_divide_is_not_tried():
    assert {f * d for d, f, c, t in shapes(config(), chips=256)} <= {1, 2, 4, 8, 16, 32, 64, 128}  # rows of a batch
    assert {c for d, f, c, t in shapes(config(crops=126))} == {1, 2}
    assert {
        t for d, f, c, t in shapes(small_run.config(batch=128, data__vocab_size=100_278), a=PRESETS["molmo2_o_7b"])
    } == {1, 2}


def test_state_that_does_not_fit_is_not_tried():
    least = PARAMETERS * 12 / V5E.hbm  # devices that have to share it
    assert {f * t for d, f, c, t in shapes(config(), chip=V5E)} == {8, 16, 32, 64} and 4 < least < 8
    assert (64, 1, 1, 1) in shapes(config(), chip=dataclasses.replace(V5P, hbm=1e12))


def test_vision_shards_follow_the_mesh():
    for m in sweep.meshes(config(), EIGHT_B, PARAMETERS, V5P, 64):
        assert m["data.vision_shards"] == m["mesh.context"]


def test_a_stage_with_tpu_kernels_is_swept():
    c = read(experiment("stage2_sft", "8b").to_dict())
    assert {"mesh.fsdp": 64, "mesh.context": 1} in [
        {key: m[key] for key in ("mesh.fsdp", "mesh.context")} for m in sweep.meshes(c, EIGHT_B, PARAMETERS, V5P, 64)
    ]


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


def test_where_nothing_fits_the_smallest_is_gone_on_with():
    order = [
        Trial({}, fits=False, peak=70),
        Trial({}, fits=False, peak=90),
        Trial({}),
        Trial({}, error="exit status 1: x"),
    ]
    assert sorted([order[n] for n in (2, 0, 3, 1)], key=Trial.rank) == order


def test_meshes_come_with_what_the_config_says():
    c = dataclasses.replace(small_run.config(batch=6), microbatches=2)
    mesh, remat, vit, microbatches = sweep.stages(c, [{"mesh.fsdp": 4}])
    assert mesh == [{"mesh.fsdp": 4, "model.remat": c.model.remat, "model.vit_remat": "none", "microbatches": 2}]
    assert {x["model.remat"] for x in remat} == {x["model.vit_remat"] for x in vit} >= {"none", "full", "dots"}
    assert microbatches == [{"microbatches": 1}, {"microbatches": 2}]  # 4 and 8 do not divide 6


def test_nothing_is_compiled_twice():
    tried = []
    sweep.sweep([[{"mesh": "a", "remat": "full"}], [{"remat": "full"}], [{"mesh": "b"}]], fake(tried))
    assert tried == [{"mesh": "a", "remat": "full"}, {"mesh": "b", "remat": "full"}]


def test_a_sweep_that_was_stopped_goes_on(tmp_path):
    stages = [[{"mesh": m} for m in "abc"], [{"remat": r} for r in ("full", "dots", "out")]]
    want, tried = sweep.sweep(stages, fake([])), []
    run, kept = fake(tried), sweep.Kept(tmp_path / "sweep.json", config(), "v5p:2x2x1")

    def stopped(overrides):
        if len(tried) == 2:
            raise KeyboardInterrupt
        kept.add(run(overrides))
        return kept.trials[-1]

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(stages, stopped, kept.trials)
    kept.add(Trial({"mesh": "c"}, error="exit status -9: "))
    again = sweep.Kept(tmp_path / "sweep.json", config(), "v5p:2x2x1")
    assert [t.overrides for t in again.trials] == [{"mesh": "a"}, {"mesh": "b"}]
    assert sweep.sweep(stages, run, again.trials) == want
    assert [t["mesh"] for t in tried] == ["a", "b", "c", "b", "b", "b"]
    for other in ((config(), "v5p:2x2x2"), (config(crops=64), "v5p:2x2x1")):
        with pytest.raises(ConfigError, match=r"sweep\.json is of a sweep of another config or topology; take another"):
            sweep.Kept(tmp_path / "sweep.json", *other)


@pytest.mark.parametrize("status", [0, 3])
def test_a_trial_is_a_process_that_leaves_a_report(monkeypatch, status):
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
    trial = sweep.compile_apart(["--config=a.py", "--topology=v5e:2x2"], {"mesh.fsdp": 4})
    assert trial == Trial({"mesh.fsdp": 4}, status == 0, 2.5, 0.5, 0.25, 17 if status == 0 else 0, 90.0)
    assert commands[0][:4] == [sys.executable, "-m", "molmo2_jax.cli", "aot"]
    assert commands[0][4:7] == ["--config=a.py", "--topology=v5e:2x2", "--config.mesh.fsdp=4"]


def test_a_trial_that_fails_says_why(monkeypatch):
    err = "noise\nmolmo2 aot: the compiler refuses: INTERNAL: x\nmore noise\n"
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", err))
    trial = sweep.compile_apart([], {"mesh.fsdp": 4})
    assert trial.error == "exit status 1: molmo2 aot: the compiler refuses: INTERNAL: x"


def test_the_table_has_a_line_a_trial():
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
