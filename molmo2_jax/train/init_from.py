"""Where a run's parameters come from at step 0: several sources, one for each group of parameters.

    c.init_from = {
        "llm": {"pattern": r"llm/(?!embed/new).*", "source": "hf:Qwen/Qwen3-4B-Instruct-2507"},
        "vit": {"pattern": r"vit/.*", "source": "hf:google/siglip2-so400m-patch14-384"},
        "connector": {"pattern": r"connector/.*|llm/embed/new", "source": "fresh"},
    }

Sources: `fresh` draws from the run's seed; `hf:` is a folder, a URL or a hub name (hf/fetch.py) of a Molmo2 or of a
model it starts from; `orbax:` is a workdir of `molmo2 train`, one of its steps, or what `molmo2 convert` wrote.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax

from molmo2_jax.hf.fetch import local_folder
from molmo2_jax.hf.source import HfSource
from molmo2_jax.models import config as models
from molmo2_jax.models import params as parameters
from molmo2_jax.models.params import ParameterSource, Params, Structure
from molmo2_jax.train import checkpoint
from molmo2_jax.train.config import ConfigError, InitConfig
from molmo2_jax.train.param_files import ParamFiles
from molmo2_jax.train.patterns import sort_names

FRESH = "fresh"


class _Opened(NamedTuple):
    """A source and its parts of a model's config (None: it has no such part)."""

    source: ParameterSource
    parts: dict[str, object]


def architecture(preset: str) -> models.Molmo2Config:
    """The architecture called `preset`, or for "hf:…" the one its config.json describes. Needs a mesh to be set.

    Raises:
      ValueError: an unknown name, or a directory that is no whole Molmo2.
    """
    if not preset.startswith("hf:"):
        return models.preset(preset)
    return HfSource(local_folder(preset.removeprefix("hf:")), preset, tied=None).model.molmo2(preset)


def sort_parameters(s: Structure, c: Mapping[str, InitConfig]) -> dict[str, str]:
    """{parameter: its group of init_from}. Raises ValueError unless each matches exactly one, and no group is idle."""
    for group, one in c.items():
        if one.source != FRESH and not one.source.startswith(("hf:", "orbax:")):
            raise ValueError(f'init_from.{group}.source is {one.source!r}; it is "fresh", "hf:…" or "orbax:…"')
    return sort_names(s.shapes, {group: one.pattern for group, one in c.items()}, "init_from")


def initial(s: Structure, mesh: jax.sharding.Mesh, c: Mapping[str, InitConfig], seed: int) -> tuple[Params, str]:
    """The parameters at step 0, straight into their shards, and a table of what came from where.

    Raises:
      HfError, CheckpointError, FileNotFoundError: a source that cannot be read.
      ConfigError: a source that lacks a parameter or is of another architecture; names every key that differs.
    """
    groups = sort_parameters(s, c)
    opened = {one.source: _open(one.source, s.config) for one in c.values() if one.source != FRESH}
    wrong = [f"init_from.{group}: {p}" for group in c for p in _problems(s, c[group], groups, group, opened)]
    if wrong:
        raise ConfigError("\n".join(wrong))
    sources = {name: opened[c[group].source].source for name, group in groups.items() if c[group].source != FRESH}
    drawn = set(groups) - set(sources)
    params = parameters.place(sources, s, mesh) | (parameters.init(s, seed, drawn) if drawn else {})
    return params, _table(s, c, groups)


def _open(source: str, wanted: models.Molmo2Config) -> _Opened:
    kind, _, place = source.partition(":")
    if kind == "hf":
        found = HfSource(local_folder(place), source, tied=wanted.llm.tied)
        return _Opened(found, {part: getattr(found.model, part) for part in ("vit", "connector", "llm")})
    step = checkpoint.newest_step(place)
    whole = checkpoint.load_architecture(step)
    return _Opened(ParamFiles(step / "params"), {part: getattr(whole, part) for part in ("vit", "connector", "llm")})


def _problems(s: Structure, c: InitConfig, groups: Mapping[str, str], group: str, opened: Mapping) -> list[str]:
    """Why a group's source cannot serve it."""
    if c.source == FRESH:
        return []
    source, parts = opened[c.source]
    names = [name for name in groups if groups[name] == group]
    missing = [name for name in names if name not in source.arrays]
    if missing:
        return [f"{c.source} has no {name!r}" for name in missing]
    problems = []
    for part in dict.fromkeys(name.split("/")[0] for name in names):
        here = getattr(s.config, part)
        problems += models.differences(part, _as_used(part, parts[part], here), here)
    if problems:
        return [f"{c.source} is another model (there -> here): {'; '.join(problems)}"]
    return [
        f"{c.source}: {name} is {source.arrays[name].shape}, expected {s.shapes[name]}"
        for name in names
        if source.arrays[name].shape[s.layers(name) is not None :] != s.shapes[name][s.layers(name) is not None :]
    ]


def _as_used(part: str, there, here):
    """A base model's config with what a Molmo2 adds to it: new tokens, and the layers of the ViT that are read."""
    if part == "llm" and there.new_vocab == 0:
        return dataclasses.replace(there, new_vocab=here.new_vocab)
    if part == "vit" and not there.feature_layers and there.layers >= here.layers:
        return dataclasses.replace(there, layers=here.layers, feature_layers=here.feature_layers)
    return there


def _table(s: Structure, c: Mapping[str, InitConfig], groups: Mapping[str, str]) -> str:
    """A line a group: how many numbers came from where, and the parameters."""
    lines = []
    for group, one in c.items():
        names = [name for name in groups if groups[name] == group]
        count = sum(math.prod(s.shapes[name]) for name in names)
        shown = ", ".join(names[:3]) + (f", … {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"  {group:<12} {count:>15,}  {one.source}   ({shown})")
    return "\n".join(lines)
