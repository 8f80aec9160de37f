"""The command `molmo2 aot`; one test compiles the step of a small model for four chips of v5e."""

import dataclasses
import importlib.util
import json
import pathlib

import pytest

from molmo2_jax.aot import analysis, sweep
from molmo2_jax.cli.aot import _trial_flags
from molmo2_jax.models import config as models
from tests.molmo2_jax.aot.examples import example_report
from tests.molmo2_jax.models.small import small

CONFIG = pathlib.Path(__file__).parents[3] / "experiments" / "overfit_video_point.py"
KEYS = {
    "batch": 4,
    "mesh.fsdp": 2,
    "mesh.tensor": 2,
    "model.dtype": "bfloat16",
    "model.loss_chunk": 64,
    "data.row.seq_len": 256,
    "data.row.crops": 2,
    "data.row.pooled": 128,
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"),
]


def arguments(**keys) -> list[str]:
    overrides = [f"--config.{key}={value}" for key, value in (KEYS | keys).items()]
    return ["aot", f"--config={CONFIG}", "--topology=v5e:2x2", *overrides]


@pytest.fixture
def small_model(monkeypatch):
    monkeypatch.setitem(models.PRESETS, "tiny", small())


def test_a_step_is_compiled_and_reported(molmo2, small_model, tmp_path):
    status, out, err = molmo2(*arguments(), "--out=report", "--dump=dump")
    assert status == 0, err
    for expected in (
        "fits: ",
        "v5e:2x2, 4 chips, data=1 fsdp=2 context=1 tensor=2",
        "Where the time goes",
        "all-gather",
    ):
        assert expected in out
    r = json.loads((tmp_path / "report" / "report.json").read_text())
    assert r["fits"] and r["memory"]["peak"] == sum(
        sign * r["memory"][name]
        for name, sign in [("arguments", 1), ("temporaries", 1), ("output", 1), ("code", 1), ("alias", -1)]
    )
    assert {m["axes"] for m in r["collectives"]} >= {"fsdp", "tensor", "fsdp x tensor"}
    parts = {p["name"] for p in r["parts"]}
    assert {"ViT attention", "ViT matmuls", "attention", "LLM matmuls", "loss", "optimizer"} <= parts
    assert "other" not in parts
    assert 0 < r["mfu"] < 1 and r["step_seconds"] == pytest.approx(sum(p["seconds"] for p in r["parts"]))
    model, executed = sum(r["model_flops"].values()), 4 * r["executed_flops"]
    assert 0.9 < executed / model < 2  # remat is off, tiles and chunks are whole
    assert not [w for w in r["warnings"] if "unknown trip count" in w]
    assert "### Where the time goes" in (tmp_path / "report" / "report.md").read_text()
    dump = tmp_path / "dump"
    assert (dump / "step.hlo.txt").read_text().startswith("HloModule jit_step")
    assert json.loads((dump / "memory.json").read_text()) == r["memory"]
    assert json.loads((dump / "model_flops.json").read_text())["total"] == pytest.approx(model)


@pytest.fixture
def reported(monkeypatch):
    """Replaces `analyse`: a report that fits or not, without compiling."""

    def give(fits: bool):
        made = (
            example_report() if fits else dataclasses.replace(example_report(), fits=False, verdict="DOES NOT FIT: 17")
        )
        monkeypatch.setattr(analysis, "analyse", lambda run, topology, dump: made)

    return give


@pytest.mark.parametrize(("fits", "expected"), [(True, 0), (False, 3)])
def test_the_exit_status_says_whether_it_fits(molmo2, reported, fits, expected):
    reported(fits)
    status, _, err = molmo2(*arguments())
    assert status == expected
    assert (err == "molmo2 aot: DOES NOT FIT: 17\n") == (not fits)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--topology=v5e"],
            "--topology=v5e: expected GENERATION:SIZE, such as v5p:4x4x4, with a generation of ['v4', 'v5e'",
        ),
        (["--topology=v3:2x2"], "--topology=v3:2x2: expected GENERATION:SIZE"),
        (["--topology=v5e:3x5x7"], "--topology=v5e:3x5x7: "),
        (
            ["--config.mesh.fsdp=8"],
            "mesh {'context': 1, 'data': 1, 'fsdp': 8, 'tensor': 2} needs 16 devices, but there are 4",
        ),
        (["--config.data.vocab_size=7"], "vocab_size"),
        (["--config.model.remat=all"], "model.remat = 'all' is unknown"),
    ],
)
def test_mistakes_are_one_message(molmo2, small_model, flags, message):
    status, out, err = molmo2(*arguments(), *flags)
    assert status == 1 and out == ""
    assert err.startswith("molmo2 aot: ") or "molmo2 aot: " in err
    assert message in err and "Traceback" not in err


def test_without_libtpu_the_extra_is_named(molmo2, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status, _, err = molmo2(*arguments())
    assert status == 1
    assert err == "molmo2 aot: --topology: compiling for TPUs needs the libtpu package: pip install 'molmo2_jax[aot]'\n"


def test_a_sweep_saves_all_trials_and_prints_them(molmo2, small_model, monkeypatch, tmp_path):
    shared = []

    def compile_in_subprocess(flags, overrides):
        shared.append(flags)
        seconds = overrides["mesh.fsdp"] + (overrides["model.remat"] != "dots")
        return sweep.Trial(dict(overrides), True, step_seconds=seconds)

    monkeypatch.setattr(sweep, "compile_in_subprocess", compile_in_subprocess)
    status, out, _ = molmo2(*arguments(), "--sweep", "--out=found")
    assert status == 0
    trials = json.loads((tmp_path / "found" / "sweep.json").read_text())["trials"]
    assert trials[0]["overrides"]["mesh.fsdp"] == 1 and trials[0]["overrides"]["model.remat"] == "dots"
    assert len(trials) == len(out.splitlines()) == len(shared)
    assert shared[0] == arguments()[1:]


@pytest.mark.parametrize(
    "flags", [("--sweep", "--out=found"), ("--sweep", "--out", "found"), ("-sweep", "-out", "found"), ("--sweep=true",)]
)
def test_trials_have_all_flags_of_a_sweep_but_its_own(flags):
    assert _trial_flags(["--config=a.py", *flags, "--topology=v5e:2x2"]) == ["--config=a.py", "--topology=v5e:2x2"]


def test_a_sweep_without_a_trial_that_fits(molmo2, small_model, monkeypatch):
    monkeypatch.setattr(sweep, "compile_in_subprocess", lambda flags, overrides: sweep.Trial(dict(overrides)))
    status, _, err = molmo2(*arguments(), "--sweep")
    assert status == 3 and err.endswith("molmo2 aot: no trial fits\n")


def test_a_sweep_dumps_nothing(molmo2, small_model):
    status, _, err = molmo2(*arguments(), "--sweep", "--dump=x")
    assert status == 1 and "--dump: a sweep dumps no programs" in err
