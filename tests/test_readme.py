"""The Python of the README runs as it stands."""

import pathlib
import re
import runpy

import jax
import pytest

import molmo2_jax as m2
from data_pipelines.config import read_config
from experiments import _base
from molmo2_jax import sharding
from molmo2_jax.models import config as models
from molmo2_jax.models.structure import structure
from molmo2_jax.weights import init_from
from molmo2_jax.weights.init_from import RANDOM, InitConfig, assign_sources

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A folder like a checkout after `make demo`, only that the model has trained for one step."""
    monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    m2.train("experiments/overfit_video_point.py", "runs/demo", {"steps": 1})
    return tmp_path


def test_the_snippet_runs(demo, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (demo / "snippet.py").write_text(snippet)
    names = runpy.run_path("snippet.py")
    assert isinstance(names["answer"], m2.Answer) and names["answer"].text in capsys.readouterr().out
    assert (demo / "runs" / "mask" / "checkpoints" / "2").is_dir()
    assert "validate_message_mask" in (demo / "runs" / "mask" / "row.html").read_text(encoding="utf-8")


def test_the_sources_of_weights_are_those_that_a_config_may_name():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    call = re.search(r"c\.init_from = _base\.init_from\((.*?)\n    \)", text, re.DOTALL)[1]
    sources = dict(re.findall(r'(\w+)="([^"]*)"', call))
    assert set(sources) == {"llm", "vit", "connector"}
    with jax.set_mesh(sharding.single_device_mesh()):
        s = structure(models.TINY)
    assign_sources(s, read_config(dict[str, InitConfig], _base.init_from(**sources).to_dict(), "init_from"))
    assert f"A source is `{RANDOM}`;" in text and f"`{RANDOM}` draws" in init_from.__doc__


def test_every_file_and_command_that_the_readme_names_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:experiments|docs|tests|molmo2_jax|data_pipelines)/[\w/.]*)`", text)
    assert len(named) >= 10 and [name for name in named if not (ROOT / name).exists()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([\w-]+)", text):
        assert f"\n{target}:" in makefile, target
