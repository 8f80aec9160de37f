"""Checkpoints by Orbax: parameters, optimizer, data iterator and config of a step, saved atomically.

    workdir/checkpoints/{step}/  params/ optimizer/ data/ config/ architecture/

An unfinished save has another name and is never read. The newest `keep` checkpoints are kept. Reading a checkpoint
without a training run: weights/checkpoint_files.py.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Annotated

import grain
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import traverse_util

from data_pipelines.config import at_least
from data_pipelines.loading.loader import merge_states
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.structure import structure
from molmo2_jax.train.step import State
from molmo2_jax.weights.checkpoint_files import (
    CHUNK_BYTES,
    CheckpointError,
    check_architecture,
    differences,
    nested,
    to_json,
)

# Differences in config keys that the saved optimizer state or data position depends on: "batch: 2 -> 1".
_STATE_DEPENDS_ON = re.compile(
    r"(batch|seed|data\.loader\.(pool|overflow)|data\.mixture\.groups\..*\.(rate|size)"
    r"|optim\.frozen|optim\.groups\.[^.]+\.pattern): "
)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save, and how many checkpoints to keep."""

    every: Annotated[int, at_least(1)]  # steps between checkpoints
    keep: Annotated[int, at_least(1)]  # newest checkpoints to keep


class Checkpoints:
    """The checkpoints of one workdir.

    Args:
      run_config: the whole training config as JSON. It is saved, and compared when a run continues.
    """

    def __init__(
        self, workdir: str | pathlib.Path, config: CheckpointConfig, run_config: Mapping, architecture: Molmo2Config
    ):
        self._directory = pathlib.Path(workdir).absolute() / "checkpoints"
        self._run_config, self._architecture = run_config, architecture
        options = ocp.CheckpointManagerOptions(max_to_keep=config.keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def save(self, state: State, data: grain.DatasetIterator) -> None:
        """Saves in the background; the next save, `wait` and `close` wait for it. Needs a mesh to be set."""
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        s = structure(self._architecture)
        shard_axes = {name: (0,) if s.layers(name) else () for name in state.params}
        chunks = {n: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES, shard_axes=axes) for n, axes in shard_axes.items()}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(nested(state.params), nested(chunks)),
                optimizer=ocp.args.StandardSave(state.optimizer),
                data=grain.checkpoint.CheckpointSave(data),
                config=ocp.args.JsonSave(dict(self._run_config)),
                architecture=ocp.args.JsonSave(to_json(self._architecture)),
            ),
        )

    def restore(self, state: State, data: grain.DatasetIterator) -> tuple[State, list[str]]:
        """The newest checkpoint, and the config values that differ from the saved ones. Sets the position of `data`.

        Args:
          state: shapes and shardings (ShapeDtypeStructs) of the state.

        Raises:
          CheckpointError: the checkpoint is of another architecture, batch or grouping of parameters; the message
            names the keys that differ.
        """
        step = self._manager.latest_step()
        saved = self._manager.restore(
            step, args=ocp.args.Composite(config=ocp.args.JsonRestore(), architecture=ocp.args.JsonRestore())
        )
        folder = self._directory / str(step)
        check_architecture(folder, saved.architecture, self._architecture)
        changed = differences(saved.config, dict(self._run_config))
        conflicts = [difference for difference in changed if _STATE_DEPENDS_ON.match(difference)]
        if conflicts:
            raise CheckpointError(
                f"{folder}: a run cannot continue with a changed {'; '.join(conflicts)} (saved -> config). "
                "Restore the saved values, or use another --workdir."
            )
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(nested(state.params)),
                optimizer=ocp.args.StandardRestore(state.optimizer),
            ),
        )
        data.set_state(_data_state(folder / "data"))
        params = traverse_util.flatten_dict(items.params, sep="/")
        state = State(
            jax.device_put(jnp.int32(step), state.step.sharding),
            {name: params[name] for name in state.trainable},
            {name: params[name] for name in state.frozen},
            items.optimizer,
        )
        return state, changed

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _data_state(folder: pathlib.Path) -> dict:
    """The position of all rows in the data, from the files of all processes of the saving run."""
    files = sorted(folder.glob("process_*.json"))
    if not files:
        raise CheckpointError(f"{folder}: no process_*.json with the position in the data")
    return merge_states([json.loads(file.read_text()) for file in files])
