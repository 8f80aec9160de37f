"""A run's parameters at step 0: one source for each group of parameters.

    c.init_from = {
        "llm": {"pattern": r"llm/(?!embed/new).*", "source": "hf:Qwen/Qwen3-4B-Instruct-2507"},
        "vit": {"pattern": r"vit/.*", "source": "hf:google/siglip2-so400m-patch14-384"},
        "connector": {"pattern": r"connector/.*|llm/embed/new", "source": "random"},
    }

`random` draws from the run's seed. `hf:` names a folder, a URL or a hub name (weights/hf/fetch.py) of a Molmo2 or of a
model that Molmo2 starts from. `orbax:` names a workdir of `molmo2 train`, one of its steps, or a converted checkpoint.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax

from data_pipelines.config import ConfigError
from molmo2_jax import sharding
from molmo2_jax.models import config as models
from molmo2_jax.models.structure import Params, Structure
from molmo2_jax.weights import checkpoint_files
from molmo2_jax.weights.hf.fetch import CONFIG_FILES, local_folder
from molmo2_jax.weights.hf.source import HfSource, read_model
from molmo2_jax.weights.orbax_files import ParamFiles
from molmo2_jax.weights.patterns import assign_by_pattern
from molmo2_jax.weights.random_init import init_params
from molmo2_jax.weights.source import ParameterSource, load_sharded

RANDOM = "random"


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """The source of one group of parameters."""

    pattern: str  # regex that matches whole parameter names
    source: str  # "random", "hf:…" or "orbax:…"


class _OpenedSource(NamedTuple):
    """A source, and the config of each part of its model: "vit", "connector", "llm"; None for a part it lacks."""

    source: ParameterSource
    parts: dict[str, object]


def load_preset(preset: str) -> models.Molmo2Config:
    """The architecture called `preset`; for "hf:…", the one that its config.json describes.

    Raises:
      ValueError: an unknown name, or a directory that is not a whole Molmo2.
    """
    if not preset.startswith("hf:"):
        return models.preset(preset)
    with jax.set_mesh(sharding.single_device_mesh()):
        return HfSource(local_folder(preset.removeprefix("hf:")), preset, tied=None).model.molmo2(preset)


def load_vocab_size(preset: str) -> int:
    """Entries of the tokenizer's vocabulary, of the architecture called `preset`; of "hf:…", no weights are fetched.

    Raises:
      ValueError: as `load_preset`.
    """
    if not preset.startswith("hf:"):
        return models.preset(preset).llm.vocab
    return read_model(local_folder(preset.removeprefix("hf:"), CONFIG_FILES)).molmo2(preset).llm.vocab


def assign_sources(s: Structure, c: Mapping[str, InitConfig]) -> dict[str, str]:
    """{parameter: its group of init_from}.

    Raises:
      ValueError: an unknown source, a parameter that does not match exactly one group, or a group that matches none.
    """
    for group, one in c.items():
        if one.source != RANDOM and not one.source.startswith(("hf:", "orbax:")):
            raise ValueError(f'init_from.{group}.source is {one.source!r}; it is "random", "hf:…" or "orbax:…"')
    return assign_by_pattern(s.shapes, {group: one.pattern for group, one in c.items()}, "init_from")


def initial_params(s: Structure, mesh: jax.sharding.Mesh, c: Mapping[str, InitConfig], seed: int) -> tuple[Params, str]:
    """The parameters at step 0, loaded or drawn straight into their shards, and a table of their sources.

    Raises:
      HfError, CheckpointError, FileNotFoundError: a source cannot be read.
      ConfigError: a source lacks a parameter or has another architecture; the message names every key that differs.
    """
    groups = assign_sources(s, c)
    opened = {one.source: _open_source(one.source, s.config) for one in c.values() if one.source != RANDOM}
    problems = [f"init_from.{group}: {p}" for group in c for p in _source_problems(s, c[group], groups, group, opened)]
    if problems:
        raise ConfigError("\n".join(problems))
    sources = {name: opened[c[group].source].source for name, group in groups.items() if c[group].source != RANDOM}
    drawn = set(groups) - set(sources)
    params = load_sharded(sources, s, mesh) | (init_params(s, seed, drawn) if drawn else {})
    return params, _source_table(s, c, groups)


def _open_source(source: str, wanted: models.Molmo2Config) -> _OpenedSource:
    kind, _, path = source.partition(":")
    if kind == "hf":
        opened = HfSource(local_folder(path), source, tied=wanted.llm.tied)
        model = opened.model
    else:
        step = checkpoint_files.newest_step(path)
        model = checkpoint_files.load_architecture(step)
        opened = ParamFiles(step / "params")
    return _OpenedSource(opened, {part: getattr(model, part) for part in ("vit", "connector", "llm")})


def _source_problems(s: Structure, c: InitConfig, groups: Mapping[str, str], group: str, opened: Mapping) -> list[str]:
    """Why a group cannot be read from its source."""
    if c.source == RANDOM:
        return []
    source, parts = opened[c.source]
    names = [name for name in groups if groups[name] == group]
    missing = [name for name in names if name not in source.arrays]
    if missing:
        return [f"{c.source} has no {name!r}" for name in missing]
    problems = []
    for part in dict.fromkeys(name.split("/")[0] for name in names):
        wanted = getattr(s.config, part)
        problems += models.differences(part, _part_as_used(part, parts[part], wanted), wanted)
    if problems:
        return [f"{c.source} is another model (source -> wanted): {'; '.join(problems)}"]
    return [
        f"{c.source}: {name} is {source.arrays[name].shape}, expected {s.shapes[name]}"
        for name in names
        if source.arrays[name].shape[s.layers(name) is not None :] != s.shapes[name][s.layers(name) is not None :]
    ]


def _part_as_used(part: str, source, wanted):
    """A base model's config with what a Molmo2 adds to it: new tokens, and the layers of the ViT that are read."""
    if part == "llm" and source.new_vocab == 0:
        return dataclasses.replace(source, new_vocab=wanted.new_vocab)
    if part == "vit" and not source.feature_layers and source.layers >= wanted.layers:
        return dataclasses.replace(source, layers=wanted.layers, feature_layers=wanted.feature_layers)
    return source


def _source_table(s: Structure, c: Mapping[str, InitConfig], groups: Mapping[str, str]) -> str:
    """One line per group: its number of values, its source, and its parameters."""
    lines = []
    for group, one in c.items():
        names = [name for name in groups if groups[name] == group]
        count = sum(math.prod(s.shapes[name]) for name in names)
        shown = ", ".join(names[:3]) + (f", … {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"  {group:<12} {count:>15,}  {one.source}   ({shown})")
    return "\n".join(lines)
