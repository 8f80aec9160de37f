"""`molmo2 train`: trains from a config, or continues from the newest checkpoint in --workdir."""

import sys

from absl import flags
from ml_collections import config_flags

from molmo2_jax.cli import command
from molmo2_jax.train import distributed, loop
from molmo2_jax.train.config import TrainConfig, read


def main(argv: list[str]) -> None:
    """Trains. The exit status is 143 if SIGTERM stopped the run, with a checkpoint."""
    config = config_flags.DEFINE_config_file("config", None, "Experiment file; keys after it: --config.steps=10.")
    workdir = flags.DEFINE_string(
        "workdir", None, "Folder of metrics and checkpoints, to continue from the newest one."
    )
    flags.mark_flags_as_required(["config", "workdir"])

    def run() -> int:
        return train(read(config.value.to_dict()), workdir.value)

    command.run(run, argv)


def train(config: TrainConfig, workdir: str) -> int:
    """Trains, together with other processes if there are any; returns the exit status."""
    distributed.start()  # before anything asks for a device
    with distributed.fail_together():
        try:
            loop.train(config, workdir)
        except loop.Preempted as stop:
            print(stop, file=sys.stderr)
            return 143  # 128 + SIGTERM, as of a process that the signal killed
    return 0
