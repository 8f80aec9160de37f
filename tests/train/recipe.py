"""The configs in experiments/, run as `molmo2` runs them."""

import pathlib
import runpy
import sys

from ml_collections import ConfigDict

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))


def experiment(name: str, *arguments: str) -> ConfigDict:
    """What `get_config(*arguments)` of an experiment returns."""
    sys.path.insert(0, str(FOLDER))  # for its `import _base`
    try:
        return runpy.run_path(str(FOLDER / f"{name}.py"))["get_config"](*arguments)
    finally:
        sys.path.remove(str(FOLDER))
