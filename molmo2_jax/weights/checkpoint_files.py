"""Reading a checkpoint without a training run: its parameters, architecture and training config.

workdir/checkpoints/{step}/   params/ optimizer/ data/ config/ architecture/     written by train/checkpoint.py
converted/                    params/ architecture/ processor/                   written by weights/convert.py
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import traverse_util

from data_pipelines.config import read_config
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.structure import Params, Structure

CHUNK_BYTES = 1 << 27  # largest chunk of a stored array, the unit of reading; a chunk is at most one layer
PROCESSOR_FOLDER = "processor"  # of a converted checkpoint: the tokenizer and processor files of its source


class CheckpointError(ValueError):
    """A checkpoint is damaged, or of another architecture than the one wanted."""


def to_json(config: Any) -> Any:
    """A config dataclass as it is read back from JSON: tuples become lists, so that equal configs compare equal."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def differences(saved: Any, current: Any) -> list[str]:
    """["llm.width: 128 -> 64", …] between two nested mappings."""
    a, b = (traverse_util.flatten_dict(x, sep=".", keep_empty_nodes=True) for x in (saved, current))
    return [f"{k}: {a.get(k, 'absent')} -> {b.get(k, 'absent')}" for k in sorted(a | b) if a.get(k) != b.get(k)]


def nested(params: Params) -> dict:
    """{"llm/head": x} -> {"llm": {"head": x}}, which is how Orbax stores parameters."""
    return traverse_util.unflatten_dict(params, sep="/")


def check_architecture(step: pathlib.Path, saved: dict, wanted: Molmo2Config) -> None:
    """Raises CheckpointError, naming the keys that differ, unless the saved architecture is `wanted`."""
    changed = differences(saved, to_json(wanted))
    if changed:
        raise CheckpointError(
            f"{step} holds another model (saved -> wanted): {'; '.join(changed)}. "
            "Use the config it was trained with, or another folder."
        )


def has_step(workdir: str | pathlib.Path) -> bool:
    """Whether the workdir has a finished checkpoint to continue from."""
    return bool(_finished_steps(pathlib.Path(workdir)))


def _finished_steps(workdir: pathlib.Path) -> list[pathlib.Path]:
    return [d for d in (workdir / "checkpoints").glob("*") if d.name.isdigit() and (d / "params").is_dir()]


def newest_step(directory: str | pathlib.Path) -> pathlib.Path:
    """The newest step of a workdir, or the directory itself if it is a step or a converted checkpoint.

    Raises:
      FileNotFoundError: there is no finished checkpoint.
    """
    root = pathlib.Path(directory).absolute()
    if (root / "params").is_dir():
        return root
    steps = _finished_steps(root)
    if not steps:
        raise FileNotFoundError(
            f"{root}: no finished checkpoint there (a workdir with checkpoints/, or one of its steps)"
        )
    return max(steps, key=lambda d: int(d.name))


def load_config(step: pathlib.Path) -> dict | None:
    """The training config of a step, as JSON; None for a converted checkpoint."""
    path = step / "config" / "metadata"
    return json.loads(path.read_text()) if path.is_file() else None


def config_value(step: pathlib.Path, config: Mapping[str, Any], key: str) -> Any:
    """The value of a key such as "data.view" in a config of `load_config`.

    Raises:
      CheckpointError: the config lacks the key: an earlier version of this code saved it.
    """
    value = config
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            raise CheckpointError(f"{step}: its config has no key {key}; an earlier version of this code saved it")
        value = value[name]
    return value


def load_architecture(step: pathlib.Path) -> Molmo2Config:
    """The architecture of a step. Raises CheckpointError if it is missing."""
    path = step / "architecture" / "metadata"
    if not path.is_file():
        raise CheckpointError(f"{step}: no architecture/metadata next to its params/")
    return read_config(Molmo2Config, json.loads(path.read_text()), str(path))


def save_architecture(folder: pathlib.Path, architecture: Molmo2Config) -> None:
    """Writes what `load_architecture` reads."""
    (folder / "architecture").mkdir()
    (folder / "architecture" / "metadata").write_text(json.dumps(to_json(architecture)))


def load_params(step: pathlib.Path, s: Structure, mesh: jax.sharding.Mesh) -> Params:
    """All parameters, restored straight into their shards, as float32.

    Raises:
      CheckpointError: the checkpoint has another architecture; the message names the keys that differ.
    """
    check_architecture(step, to_json(load_architecture(step)), s.config)
    with ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(step / "params", nested(s.abstract(mesh)))
    return traverse_util.flatten_dict(restored, sep="/")
