"""Experiments: Python files whose `get_config` returns the training config. Loading one, and training from it."""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.config import ConfigError
from molmo2_jax.train import distributed, loop
from molmo2_jax.train.config import TrainConfig, read


def load_config(experiment: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """The config of an experiment file, with `get_config`'s argument after a colon, as on the command line.

        load_config("experiments/stage2_sft.py:8b,debug", {"optim.groups.llm.lr": 1e-5})

    Raises:
      ConfigError: there is no such file, or an override names a key that the config does not have.
    """
    path, colon, argument = experiment.partition(":")
    if not pathlib.Path(path).is_file():
        raise ConfigError(f"no file {path}; an experiment is FILE.py or FILE.py:ARGUMENT")
    spec = importlib.util.spec_from_file_location(experiment_name(path), path)
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


def experiment_name(experiment: str) -> str:
    """The name of an experiment file: "experiments/stage2_sft.py:8b,data=/mnt/molmo2" -> "stage2_sft"."""
    return pathlib.PurePath(experiment.partition(":")[0]).stem


def read_experiment(config: str | ConfigDict | TrainConfig, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """A checked config, from an experiment file, as for `load_config`, with overrides, or from a config."""
    if isinstance(config, str):
        config = load_config(config, overrides)
    elif overrides:
        raise ConfigError("overrides go with an experiment file; change a config directly")
    return config if isinstance(config, TrainConfig) else read(config.to_dict())


def run_experiment(
    config: str | ConfigDict | TrainConfig, workdir: str | pathlib.Path, overrides: Mapping[str, Any] | None = None
) -> pathlib.Path:
    """Trains to the config's last step, or continues from the last checkpoint in `workdir`; returns the workdir.

    Raises:
      ConfigError, RecordError, and any other error of `train.loop.train`.
    """
    c, stopped = read_experiment(config, overrides), None
    distributed.start()  # before anything asks for a device
    with distributed.fail_together():
        try:
            loop.train(c, workdir)
        except loop.Preempted as error:  # all processes stop after the same step: none has failed
            stopped = error
    if stopped is not None:
        raise stopped
    return pathlib.Path(workdir)
