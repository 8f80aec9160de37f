"""The page of pods: its runs, its commands and its text, without compiling."""

import json
import math
import pathlib
import re
import subprocess

import jax
import pytest

from data_pipelines.config import check_config
from molmo2_jax.aot import report
from molmo2_jax.models.config import PRESETS
from molmo2_jax.sharding import MESH_AXES
from molmo2_jax.train.config import read
from molmo2_jax.train.setup import check_fits
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
    """Records the commands instead of compiling. Each writes the example's report; those for v5e fail."""
    commands = []

    def run(command, **_):
        commands.append(command)
        if any("v5e" in word for word in command):
            return subprocess.CompletedProcess(command, 1, "", "noise\nmolmo2 aot: the compiler rejects the step: x\n")
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
    check_config(c, "config")
    chips = math.prod(int(size) for size in re.findall(r"\d+", run.topology.partition(":")[2]))
    assert math.prod(c.mesh.values()) == chips
    mesh = jax.sharding.AbstractMesh(tuple(c.mesh[axis] for axis in MESH_AXES), MESH_AXES)
    check_fits(c, PRESETS[c.model.preset], mesh, "tpu")


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
    assert "* 37k v5p:4x4x4: none\n" in page and "* 16k v5e:16x16: `mesh.fsdp=64`, `mesh.context=4`" in page
    assert "57.3%" in page and "49.6%" in page and "| v5p | 95.74 |" in page


def test_earlier_figures_stay(folder, compiled):
    pods.main(["8b", "16k", "v5p"])
    pods.main(["4b", "16k", "v5p"])
    assert set(json.loads((folder / "pods.json").read_text())) == {"8b 16k v5p:4x4x4", "4b 16k v5p:4x4x4"}
    assert (folder / "pods.md").read_text().count("| tiny | 768 |") == 2


def test_an_error_of_the_compiler_is_on_the_page(folder, compiled):
    pods.main(["4b", "16k", "v5e"])
    assert "| 4b | 16k | v5e:16x16 | molmo2 aot: the compiler rejects the step: x |" in (folder / "pods.md").read_text()


def test_the_page_can_be_written_without_compiling(folder, compiled):
    pods.main(["8b", "16k", "v5p"])
    page = (folder / "pods.md").read_text()
    (folder / "pods.md").unlink()
    compiled.clear()
    pods.main(["--page"])
    assert compiled == [] and (folder / "pods.md").read_text() == page


def test_the_page_is_that_of_its_figures():
    assert pods.PAGE.read_text() == pods.page(json.loads(pods.FIGURES.read_text()))


def test_words_that_are_in_no_run(folder):
    with pytest.raises(SystemExit, match=r"no run has all of \['9b'\] in its name"):
        pods.main(["9b"])
