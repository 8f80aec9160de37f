"""Training: one loop for all stages, from a config to checkpoints and metrics.

Start with loop.py, which reads top to bottom. setup.py turns a config (config.py) into a mesh, an optimizer
(optimizer.py, parameter_groups.py) and a compiled step (step.py). checkpoint.py saves and restores the state,
distributed.py starts and stops several processes, and step_log.py, throughput.py and metrics.py report
(MFU: model_flops.py over peak_flops.py).
"""

import importlib
import pathlib
import sys
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from molmo2_jax.train.config import TrainConfig


class _CallablePackage(types.ModuleType):
    """Lets `m2.train(…)` start a run although `molmo2_jax.train` is this package."""

    def __call__(
        self,
        config: "str | ConfigDict | TrainConfig",
        workdir: str | pathlib.Path,
        overrides: Mapping[str, Any] | None = None,
    ) -> pathlib.Path:
        """Trains to the config's last step, or continues from the last checkpoint in `workdir`; returns the workdir.

            m2.train("experiments/stage2_sft.py:8b,debug", workdir="runs/x", overrides={"optim.groups.llm.lr": 1e-5})

        Args:
          config: an experiment file with its argument after a colon, or a ConfigDict or TrainConfig.
          overrides: config keys and their values, for an experiment file.

        Raises:
          ConfigError, RecordError, and any other error of `train.loop.train`.
        """
        return importlib.import_module("molmo2_jax.train.experiment").run_experiment(config, workdir, overrides)


sys.modules[__name__].__class__ = _CallablePackage
