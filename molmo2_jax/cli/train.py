"""`molmo2 train`: trains from a config, or continues from the newest checkpoint in --workdir."""

import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from molmo2_jax.cli import command
from molmo2_jax.train import loop
from molmo2_jax.train.config import TrainConfig
from molmo2_jax.train.experiment import run_experiment


def main(argv: list[str]) -> None:
    """Trains. The exit status is 143 if SIGTERM stopped the run, with a checkpoint."""
    config = config_flags.DEFINE_config_file("config", None, "Experiment file; keys after it: --config.steps=10.")
    workdir = flags.DEFINE_string(
        "workdir", None, "Folder of metrics and checkpoints, to continue from the newest one."
    )
    flags.mark_flags_as_required(["config", "workdir"])

    def run() -> int:
        return train(config.value, workdir.value)

    command.run(run, argv)


def train(config: ConfigDict | TrainConfig, workdir: str) -> int:
    """Trains, together with other processes if there are any; returns the exit status."""
    try:
        run_experiment(config, workdir)
    except loop.Preempted as stop:
        print(stop, file=sys.stderr)
        return 143  # 128 + SIGTERM: the status of a process that the signal killed
    return 0
