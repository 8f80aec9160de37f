"""`molmo2 train`."""

import sys

from absl import flags
from ml_collections import config_flags

from molmo2_jax.tools import command
from molmo2_jax.train import distributed, loop
from molmo2_jax.train.config import TrainConfig, read


def main(argv: list[str]) -> None:
    """Trains; exit status 143 when SIGTERM ended it with a checkpoint."""
    config = config_flags.DEFINE_config_file("config", None, "Experiment file; keys after it: --config.steps=10.")
    workdir = flags.DEFINE_string("workdir", None, "Folder of checkpoints and metrics; training goes on from there.")
    flags.mark_flags_as_required(["config", "workdir"])

    def run() -> int:
        return train(read(config.value.to_dict()), workdir.value)

    command.run(run, argv)


def train(config: TrainConfig, workdir: str) -> int:
    """Trains, with the other processes if there are any; the exit status."""
    distributed.start()  # before anything asks for a device
    with distributed.together():
        try:
            loop.train(config, workdir)
        except loop.Preempted as stop:
            print(stop, file=sys.stderr)
            return 143  # as a process that SIGTERM killed
    return 0
