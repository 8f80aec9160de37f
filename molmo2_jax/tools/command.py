"""What the subcommands share: running a function under absl's flags, with errors a person can read."""

import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from molmo2_jax.data.archive import ArchiveError
from molmo2_jax.data.failure import ExampleError
from molmo2_jax.data.mixture import MixtureError
from molmo2_jax.hf.config import HfError
from molmo2_jax.train.checkpoint import CheckpointError
from molmo2_jax.train.config import ConfigError

MISTAKES = (ConfigError, CheckpointError, HfError, ExampleError, ArchiveError, MixtureError, FileNotFoundError)


def run(function: Callable[[], int], argv: list[str]) -> None:
    """Parses flags, calls `function` and exits with its status. Mistakes in the input end in one message, status 1.

    `--help` lists the flags that the module of `function` defines.
    """

    def parse(arguments: list[str]) -> list[str]:
        if {"--help", "-help", "-h"} & set(arguments):
            print(f"{argv[0]} --flag=value …{flags.FLAGS.module_help(function.__module__)}")
            sys.exit(0)
        try:
            _let_configs_import(arguments)
            rest = flags.FLAGS(arguments)
        except (flags.Error, ConfigError) as error:
            sys.exit(f"{argv[0]}: {error}")
        except (AttributeError, KeyError) as error:  # ml_collections: --config.KEY that the config does not have
            if {"get_config", "<module>"} & {frame.name for frame in traceback.extract_tb(error.__traceback__)}:
                raise  # no flag's mistake but the config program's: its lines tell more
            message = error
            while isinstance(message, Exception):  # one wrapped in the other
                message = message.args[0]
            sys.exit(f"{argv[0]}: the config has no such key: {message}")
        if len(rest) > 1:
            sys.exit(f"{argv[0]}: unexpected arguments: {' '.join(rest[1:])}")
        return rest

    def checked(_: list[str]) -> int:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax says much at INFO
        try:
            return function()
        except (
            ConfigError,
            CheckpointError,
            HfError,
            ExampleError,
            ArchiveError,
            MixtureError,
            FileNotFoundError,
        ) as error:
            print(f"{argv[0]}: {error}", file=sys.stderr)
            return 1

    app.run(checked, argv=argv, flags_parser=parse)


def _let_configs_import(arguments: Sequence[str]) -> None:
    """Configs import their neighbour `_base`: puts the folder of `--config=FILE` or `--config FILE` on the path.

    Raises:
      ConfigError: there is no such file.
    """
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, joined, value = argument.partition("=")
        if flag in ("--config", "-config"):
            path = pathlib.Path((value if joined else following).split(":")[0])
            if not path.is_file():
                raise ConfigError(f"--config: no file {path}")
            sys.path.insert(0, str(path.resolve().parent))
