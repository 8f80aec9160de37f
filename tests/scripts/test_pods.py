"""The page of pods: which runs there are, what is compiled, what is written, without compiling."""

import json
import math
import pathlib
import re
import subprocess
import types

import numpy as np
import pytest

from molmo2_jax.aot import report
from molmo2_jax.models.config import PRESETS
from molmo2_jax.train.checks import check_fits, check_values
from molmo2_jax.train.config import read
from scripts import pods
from tests.molmo2_jax.aot.examples import example_report
from tests.molmo2_jax.train.recipe import experiment


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(pods, "PAGE", tmp_path / "docs" / "pods.md")
    monkeypatch.setattr(pods, "FIGURES", tmp_path / "docs" / "pods.json")
    return tmp_path / "docs"


@pytest.fixture
def compiled(monkeypatch):
    """Commands that would have compiled; each leaves the example's report, but those for v5e fail."""
    commands = []

    def run(command, **_):
        commands.append(command)
        if any("v5e" in word for word in command):
            return subprocess.CompletedProcess(command, 1, "", "noise\nmolmo2 aot: the compiler refuses: x\n")
        out = next(word.removeprefix("--out=") for word in command if word.startswith("--out="))
        with open(f"{out}/report.json", "w") as file:
            file.write(report.to_json(example_report()))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_every_model_has_both_lengths_on_every_slice():
    names = {run.name for run in pods.RUNS}
    assert len(names) == len(pods.RUNS)
    for model in ("4b", "8b", "o7b"):
        assert {f"{model} {stage} {slice_}" for stage, slice_ in pods.MESHES} <= names


@pytest.mark.parametrize("run", pods.RUNS, ids=lambda run: run.name)
def test_every_run_goes_with_its_slice(run):
    c = experiment(pathlib.Path(pods.STAGES[run.stage]).stem, run.model)
    c.update_from_flattened_dict(run.overrides)
    c = read(c.to_dict())
    check_values(c)
    chips = math.prod(int(size) for size in re.findall(r"\d+", run.topology.partition(":")[2]))
    assert math.prod(c.mesh.values()) == chips
    devices = np.array([types.SimpleNamespace(platform="tpu")], object)
    mesh = types.SimpleNamespace(shape=c.mesh, devices=devices)
    check_fits(c, PRESETS[c.model.preset], mesh)


def test_one_command_compiles_and_writes(folder, compiled):
    pods.main(["8b", "v5p"])
    assert [next(w for w in c if w.startswith("--config=")).rpartition("/")[2] for c in compiled] == [
        "stage2_sft.py:8b",
        "stage3_long_context.py:8b",
    ]
    assert all("--topology=v5p:4x4x4" in c for c in compiled)
    assert set(json.loads((folder / "pods.json").read_text())) == {"8b 16k v5p:4x4x4", "8b 37k v5p:4x4x4"}
    page = (folder / "pods.md").read_text()
    assert "| tiny | 768 | v5p:4x4x4 |" in page  # the example is a tiny model
    assert "* 37k v5p:4x4x4: nothing\n" in page and "* 16k v5e:16x16: `mesh.fsdp=64`, `mesh.context=4`" in page
    assert "57.3%" in page and "49.6%" in page and "| v5p | 95.74 |" in page


def test_what_was_compiled_before_stays(folder, compiled):
    pods.main(["8b", "16k", "v5p"])
    pods.main(["4b", "16k", "v5p"])
    assert set(json.loads((folder / "pods.json").read_text())) == {"8b 16k v5p:4x4x4", "4b 16k v5p:4x4x4"}
    assert (folder / "pods.md").read_text().count("| tiny | 768 |") == 2


def test_what_the_compiler_refuses_is_said(folder, compiled):
    pods.main(["4b", "16k", "v5e"])
    assert "| 4b | 16k | v5e:16x16 | molmo2 aot: the compiler refuses: x |" in (folder / "pods.md").read_text()


def test_words_that_no_run_has(folder):
    with pytest.raises(SystemExit, match=r"no run has all of \['9b'\] in its name"):
        pods.main(["9b"])
