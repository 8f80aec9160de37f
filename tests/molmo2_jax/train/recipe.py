"""The configs in experiments/, by name."""

import importlib
import pathlib

from ml_collections import ConfigDict

import experiments

NAMES = sorted(path.stem for path in pathlib.Path(experiments.__file__).parent.glob("[!_]*.py"))


def experiment(name: str, *arguments: str) -> ConfigDict:
    """The result of `get_config(*arguments)` of an experiment."""
    return importlib.import_module(f"experiments.{name}").get_config(*arguments)
