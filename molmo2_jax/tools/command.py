"""What the subcommands share: running a function under absl's flags, with errors a person can read."""

import sys
from collections.abc import Callable

from absl import app, flags, logging

from molmo2_jax.data.media_error import MediaError
from molmo2_jax.data.record import RecordError
from molmo2_jax.train.checkpoint import CheckpointError
from molmo2_jax.train.config import ConfigError


def run(function: Callable[[], int], argv: list[str]) -> None:
    """Parses flags, calls `function` and exits with its status. Mistakes in the input end in one message, status 1."""

    def parse(arguments: list[str]) -> list[str]:
        try:
            return app.parse_flags_with_usage(arguments)
        except AttributeError as error:  # ml_collections: --config.KEY that the config does not have
            sys.exit(f"{argv[0]}: the config has no such key: {error.args[0].args[0]}")

    def checked(rest: list[str]) -> int:
        if len(rest) > 1:
            raise app.UsageError(f"unexpected arguments: {' '.join(rest[1:])}")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax says much at INFO
        try:
            return function()
        except (ConfigError, CheckpointError, RecordError, MediaError, FileNotFoundError) as error:
            print(f"{argv[0]}: {error}", file=sys.stderr)
            return 1

    app.run(checked, argv=argv, flags_parser=parse)
