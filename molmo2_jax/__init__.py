"""Training Molmo2 (arXiv 2601.10611) on TPUs in JAX: models that understand images and videos, and point and track.

    import molmo2_jax as m2

    m2.train("experiments/overfit_video_point.py", workdir="runs/demo")
    model = m2.load("runs/demo")
    answer = model.ask("Point to the black car.", video="bikes.mp4", clip=(3.04, 7.44))

Importing the package imports neither jax nor tensorflow; the names below load what they need (molmo2_jax/api.py).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molmo2_jax.api import Answer, Model, Page, Point, Track, load, load_config, show_row
    from molmo2_jax.train.experiment import run_experiment as train

__version__ = "0.1.0"

__all__ = ["Answer", "Model", "Page", "Point", "Track", "load", "load_config", "show_row", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":  # a package that can be called: molmo2_jax/train/__init__.py
        return importlib.import_module("molmo2_jax.train")
    if name in __all__:
        return getattr(importlib.import_module("molmo2_jax.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
