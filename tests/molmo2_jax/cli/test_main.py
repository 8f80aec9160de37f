"""The `molmo2` command up to the call of a subcommand: commands, flags, config overrides, messages for mistakes."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from data_pipelines.config import ConfigError
from molmo2_jax.cli import main
from molmo2_jax.train import loop
from molmo2_jax.train.config import TrainConfig

CONFIG = str(pathlib.Path(__file__).parents[3] / "experiments" / "overfit_video_point.py")

# ml_collections loads config files the old way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def trained(monkeypatch):
    """The runs that `molmo2 train` would have started: (config, workdir)."""
    runs = []
    monkeypatch.setattr(loop, "train", lambda config, workdir: runs.append((config, workdir)))
    return runs


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_lists_the_commands(molmo2, flag):
    status, out, err = molmo2(flag)
    assert status == 0 and err == ""
    assert all(f"molmo2 {name}" in out for name in main.COMMANDS)


@pytest.mark.parametrize("arguments", [(), ("tarin",), ("--config=x.py",)])
def test_an_unknown_command_shows_the_usage(molmo2, arguments):
    status, out, err = molmo2(*arguments)
    assert status == 2 and out == ""
    assert err.startswith(f"molmo2: unknown command {''.join(arguments)!r}\nusage: molmo2 COMMAND")


@pytest.mark.parametrize(
    ("command", "own"),
    [("train", "--workdir"), ("generate", "--max_new_tokens"), ("inspect", "--answers")],
)
def test_help_of_a_command_lists_its_flags(molmo2, command, own):
    status, out, err = molmo2(command, "--help")
    assert status == 0 and err == ""
    assert out.startswith(f"molmo2 {command} ")
    assert own in out and "--config" in out


def test_train_reads_the_config_with_its_overrides(molmo2, trained):
    keys = [
        "--config.steps=7",
        "--config.optim.groups.llm.lr=1",
        "--config.mesh.fsdp=8",
        "--config.model.dtype=bfloat16",
    ]
    status, out, err = molmo2("train", f"--config={CONFIG}", "--workdir=run", *keys)
    assert (status, out, err) == (0, "", "")
    ((config, workdir),) = trained
    assert isinstance(config, TrainConfig) and workdir == "run"
    assert (config.steps, config.mesh["fsdp"], config.model.dtype) == (7, 8, "bfloat16")
    assert (config.optim.groups["llm"].lr, config.optim.groups["vit"].lr) == (1.0, 1e-3)


@pytest.mark.parametrize("source", ["a.jsonl", "/data/a b.jsonl"])
def test_a_dataset_is_given_by_its_key(molmo2, trained, source):
    flag = f"--config.data.mixture.groups.records.datasets.overfit.source={source}"
    status, _, err = molmo2("train", f"--config={CONFIG}", "--workdir=run", flag)
    assert status == 0, err
    assert trained[0][0].data.mixture.groups["records"].datasets["overfit"].source == source


def test_a_config_is_read_from_any_folder(molmo2, trained):
    assert molmo2("train", "--config", CONFIG, "--workdir=run")[0] == 0
    assert len(trained) == 1


OWN_CONFIG = """
from experiments import _base, overfit_video_point


def get_config(steps="5"):
    c = overfit_video_point.get_config()
    c.steps = int(steps)
    c.mesh = _base.mesh(fsdp=2)
    return c
"""


@pytest.mark.parametrize(("argument", "steps"), [("", 5), (":7", 7)])
def test_a_config_outside_the_repository_imports_the_experiments(molmo2, trained, tmp_path, argument, steps):
    (tmp_path / "own.py").write_text(OWN_CONFIG)
    path = list(sys.path)
    status, _, err = molmo2("train", f"--config=own.py{argument}", "--workdir=run", "--config.seed=3")
    assert status == 0, err
    ((config, _),) = trained
    assert (config.steps, config.seed, config.mesh["fsdp"]) == (steps, 3, 2)
    assert sys.path == path


def test_the_experiments_are_importable_from_an_installed_project(tmp_path):
    """In a Python process of its own, without the repository as its folder or on its path."""
    (tmp_path / "own.py").write_text(f"{OWN_CONFIG}\nprint(get_config('9').steps)\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", "own.py"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "9\n"), run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([f"--config={CONFIG}"], "flag --workdir=None: Flag --workdir must have a value other than None."),
        (["--config=gone.py", "--workdir=run"], "--config: no file gone.py"),
        ([f"--config={CONFIG}", "--workdri=run"], "Unknown command line flag 'workdri'. Did you mean: workdir ?"),
        ([f"--config={CONFIG}", "--workdir=run", "more"], "unexpected arguments: more"),
        ([f"--config={CONFIG}", "--workdir=run", "--config.steps=many"], "flag --config.steps=many: invalid literal"),
        ([f"--config={CONFIG}", "--workdir=run", "--config.stepz=9"], "the config has no such key: 'stepz'"),
        ([f"--config={CONFIG}", "--workdir=run", "--config.stepz=9"], 'Did you mean "steps"'),
        ([f"--config={CONFIG}", "--workdir=run", "--config.optim.lr.llm=9"], "the config has no such key: 'lr'"),
        ([f"--config={CONFIG}", "--workdir=run", "--config.data.mixture.a=7"], "the config has no such key: 'a'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_message(molmo2, trained, arguments, message):
    status, out, err = molmo2("train", *arguments)
    assert status == 1 and out == ""
    assert err.startswith("molmo2 train: ") and message in err and "Traceback" not in err
    assert not trained


def write_config(tmp_path, body):
    path = tmp_path / "mine.py"
    path.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config():\n    {body}\n")
    return f"--config={path}"


def test_the_missing_keys_of_a_config_are_named(molmo2, trained, tmp_path):
    status, _, err = molmo2(
        "train", write_config(tmp_path, "return ConfigDict({'seed': 0, 'data': {}})"), "--workdir=run"
    )
    assert status == 1 and err.startswith("molmo2 train: config.steps is missing; config.batch is missing; ")


def test_a_mistake_in_the_config_program_shows_its_lines(molmo2, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["molmo2", "train", write_config(tmp_path, "return ConfigDict().sede"), "--workdir=w"]
    )
    with pytest.raises(AttributeError, match="sede"):
        main.main()


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (loop.Preempted(40), 143, "SIGTERM: stopped with a checkpoint of step 40\n"),
        (ConfigError("config: batch = 3"), 1, "molmo2 train: config: batch = 3\n"),
        (FileNotFoundError("no tokenizer"), 1, "molmo2 train: no tokenizer\n"),
    ],
)
def test_the_end_of_a_run_is_its_exit_status(molmo2, monkeypatch, error, status, message):
    def train(config, workdir):
        raise error

    monkeypatch.setattr(loop, "train", train)
    assert molmo2("train", f"--config={CONFIG}", "--workdir=run") == (status, "", message)


def test_no_flag_outlives_a_test(molmo2):
    assert "workdir" not in flags.FLAGS
