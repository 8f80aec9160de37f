"""Runs a subcommand: parses absl's flags and prints errors in the input as one message, without a traceback."""

import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from data_pipelines.config import ConfigError
from data_pipelines.errors import ExampleError
from data_pipelines.loading.mixture import MixtureError
from data_pipelines.media.archive import ArchiveError
from molmo2_jax.weights.checkpoint_files import CheckpointError
from molmo2_jax.weights.hf.config import HfError

INPUT_ERRORS = (ConfigError, CheckpointError, HfError, ExampleError, ArchiveError, MixtureError, FileNotFoundError)


def run(function: Callable[[], int], argv: list[str]) -> None:
    """Parses flags, calls `function` and exits with its status. Errors in the input print one message and exit with 1.

    `--help` lists the flags that the module of `function` defines.
    """

    def parse(arguments: list[str]) -> list[str]:
        if {"--help", "-help", "-h"} & set(arguments):
            print(f"{argv[0]} --flag=value …{flags.FLAGS.module_help(function.__module__)}")
            sys.exit(0)
        try:
            _check_config_files(arguments)
            rest = flags.FLAGS(arguments)
        except (flags.Error, ConfigError) as error:
            sys.exit(f"{argv[0]}: {error}")
        except (AttributeError, KeyError) as error:  # ml_collections: --config.KEY that the config does not have
            if {"get_config", "<module>"} & {frame.name for frame in traceback.extract_tb(error.__traceback__)}:
                raise  # an error of the config program itself: its traceback says more
            message = error
            while isinstance(message, Exception):  # nested
                message = message.args[0]
            sys.exit(f"{argv[0]}: the config has no such key: {message}")
        if len(rest) > 1:
            sys.exit(f"{argv[0]}: unexpected arguments: {' '.join(rest[1:])}")
        return rest

    def call(_: list[str]) -> int:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax logs every save at INFO
        try:
            return function()
        except INPUT_ERRORS as error:
            print(f"{argv[0]}: {error}", file=sys.stderr)
            return 1

    app.run(call, argv=argv, flags_parser=parse)


def _check_config_files(arguments: Sequence[str]) -> None:
    """Raises ConfigError if the file of `--config=FILE` or `--config FILE` does not exist."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, joined, value = argument.partition("=")
        if flag in ("--config", "-config"):
            path = pathlib.Path((value if joined else following).split(":")[0])
            if not path.is_file():
                raise ConfigError(f"--config: no file {path}")
