"""Loading an experiment: a Python file whose `get_config` returns the training config."""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.config import ConfigError


def load_config(experiment: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The config of an experiment file, with `get_config`'s argument after a colon, as on the command line.

        load_config("experiments/stage2_sft.py:8b,debug", {"optim.groups.llm.lr": 1e-5})

    Raises:
      ConfigError: there is no such file, or an override names a key that the config does not have.
    """
    path, colon, argument = experiment.partition(":")
    if not pathlib.Path(path).is_file():
        raise ConfigError(f"no file {path}; an experiment is FILE.py or FILE.py:ARGUMENT")
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(argument) if colon else module.get_config()
    config.lock()  # an unknown key is an error
    try:
        config.update_from_flattened_dict(dict(overrides or {}))
    except (KeyError, TypeError) as error:
        message = str(error.args[0]).partition(" Other fields present")[0]  # the library lists the whole config
        raise ConfigError(f"{experiment}: {message}") from error
    return config.unlock()
