"""Checkpoints by Orbax: parameters, optimizer, data iterator and config of a step, committed together or not at all.

    workdir/checkpoints/{step}/  params/ optimizer/ data/ config/ architecture/

An unfinished save has another name and is never read; the newest `keep` finished ones stay.
"""

import dataclasses
import json
import pathlib
import re
from typing import Any

import grain
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import traverse_util

from molmo2_jax.data.loader import merge_states
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.params import Params, Structure, structure
from molmo2_jax.train.config import CheckpointConfig, TrainConfig, build
from molmo2_jax.train.step import State


def _plain(x: Any) -> Any:
    """Dataclasses as JSON gives them back (tuples become lists), so that saved and present ones compare equal."""
    return json.loads(json.dumps(dataclasses.asdict(x)))


def _differences(saved: Any, present: Any) -> list[str]:
    """["llm.width: 128 -> 64", …] between two nested mappings."""
    a, b = (traverse_util.flatten_dict(x, sep=".", keep_empty_nodes=True) for x in (saved, present))
    return [f"{k}: {a.get(k, 'absent')} -> {b.get(k, 'absent')}" for k in sorted(a | b) if a.get(k) != b.get(k)]


def _nested(params: Params) -> dict:
    return traverse_util.unflatten_dict(params, sep="/")


# Config keys that the saved optimizer state or data position depends on.
_FIXED = re.compile(
    r"(batch|seed|data\.pool|data\.overflow|data\.mixture\..*\.(rate|size)"
    r"|optim\.frozen|optim\.groups\.[^.]+\.pattern): "
)


# A chunk of a stored array has no more than that, and no more than one layer: who wants a part of it reads all of it.
CHUNK_BYTES = 1 << 27


class CheckpointError(ValueError):
    """A checkpoint that does not fit what is asked of it."""


class Checkpoints:
    """The checkpoints of one workdir."""

    def __init__(self, workdir: str | pathlib.Path, c: CheckpointConfig):
        self._directory = pathlib.Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=c.keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    def save(self, state: State, data: grain.DatasetIterator, config: TrainConfig, architecture: Molmo2Config) -> None:
        """Saves in the background; the next save, `wait` or `close` waits for it. Needs a mesh to be set."""
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        s = structure(architecture)
        cut = {name: (0,) if s.layers(name) else () for name in state.params}
        chunks = {name: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES, shard_axes=axes) for name, axes in cut.items()}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(_nested(state.params), _nested(chunks)),
                optimizer=ocp.args.StandardSave(state.optimizer),
                data=grain.checkpoint.CheckpointSave(data),
                config=ocp.args.JsonSave(_plain(config)),
                architecture=ocp.args.JsonSave(_plain(architecture)),
            ),
        )

    def restore(
        self, state: State, data: grain.DatasetIterator, config: TrainConfig, architecture: Molmo2Config
    ) -> tuple[State, list[str]]:
        """The newest checkpoint, and the config values that differ from those saved. Sets the position of `data`.

        Args:
          state: shapes and shardings (ShapeDtypeStructs) of what to restore.

        Raises:
          CheckpointError: the checkpoint is of another architecture, batch or grouping of parameters; the message
            names the keys that differ.
        """
        step = self._manager.latest_step()
        saved = self._manager.restore(
            step, args=ocp.args.Composite(config=ocp.args.JsonRestore(), architecture=ocp.args.JsonRestore())
        )
        folder = self._directory / str(step)
        _check_architecture(folder, saved.architecture, architecture)
        changed = _differences(saved.config, _plain(config))
        fixed = [difference for difference in changed if _FIXED.match(difference)]
        if fixed:
            raise CheckpointError(f"{folder} cannot go on with another {'; '.join(fixed)}")
        items = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(_nested(state.params)),
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
    """The position of all rows, from the file that each host of the saving run wrote."""
    files = sorted(folder.glob("process_*.json"))
    if not files:
        raise CheckpointError(f"{folder}: holds no position in the data")
    return merge_states([json.loads(file.read_text()) for file in files])


def _check_architecture(step: pathlib.Path, saved: dict, wanted: Molmo2Config) -> None:
    differences = _differences(saved, _plain(wanted))
    if differences:
        raise CheckpointError(
            f"{step} holds another model (saved -> wanted): {'; '.join(differences)}. "
            "Use the config it was made with, or another folder."
        )


def has_step(workdir: str | pathlib.Path) -> bool:
    """Whether there is a finished checkpoint to go on from."""
    return bool(_steps(pathlib.Path(workdir)))


def _steps(workdir: pathlib.Path) -> list[pathlib.Path]:
    return [d for d in (workdir / "checkpoints").glob("*") if d.name.isdigit() and (d / "params").is_dir()]


def newest_step(directory: str | pathlib.Path) -> pathlib.Path:
    """The newest step of a workdir; or the directory itself, if it is one step or what `molmo2 convert` wrote.

    Raises:
      FileNotFoundError: there is no finished checkpoint.
    """
    root = pathlib.Path(directory).absolute()
    if (root / "params").is_dir():
        return root
    steps = _steps(root)
    if not steps:
        raise FileNotFoundError(
            f"{root}: no finished checkpoint there (a workdir with checkpoints/, or one of its steps)"
        )
    return max(steps, key=lambda d: int(d.name))


def load_config(step: pathlib.Path) -> dict | None:
    """The training config of a step; None where it was not trained but converted."""
    path = step / "config" / "metadata"
    return json.loads(path.read_text()) if path.is_file() else None


def load_architecture(step: pathlib.Path) -> Molmo2Config:
    """The architecture of a step. Raises CheckpointError where it is not told."""
    path = step / "architecture" / "metadata"
    if not path.is_file():
        raise CheckpointError(f"{step}: no architecture/metadata beside its params/")
    return build(Molmo2Config, json.loads(path.read_text()), str(path))


def save_architecture(folder: pathlib.Path, architecture: Molmo2Config) -> None:
    """Writes what `load_architecture` reads."""
    (folder / "architecture").mkdir()
    (folder / "architecture" / "metadata").write_text(json.dumps(_plain(architecture)))


def load_params(step: pathlib.Path, s: Structure, mesh: jax.sharding.Mesh) -> Params:
    """All parameters, straight into their shards, as float32.

    Raises:
      CheckpointError: the checkpoint is of another architecture; the message names the keys that differ.
    """
    _check_architecture(step, _plain(load_architecture(step)), s.config)
    with ocp.StandardCheckpointer() as checkpointer:
        nested = checkpointer.restore(step / "params", _nested(s.abstract(mesh)))
    return traverse_util.flatten_dict(nested, sep="/")
