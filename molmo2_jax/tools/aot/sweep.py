"""Looking for the mesh, the remat policies and the microbatches with which a step fits and is fastest.

One thing is changed at a time, and the best so far is kept:

    mesh           all that divide, with what the config says of the rest     data=1 fsdp=16 context=4 tensor=1, …
    model.remat    every policy of the LLM, with the best mesh                "attention", "qkv", …
    model.vit_remat, microbatches                                             likewise

Whatever fits is better than what does not; of what fits the shorter step wins, of what does not the smaller peak. A
trial is a compilation in a process of its own, since libtpu reads its options once and memory is given back whole. A
sweep of a large model takes hours (minutes a trial): each trial is kept in a file as it ends, and a sweep that was
stopped goes on from it.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import tqdm

from molmo2_jax import sharding
from molmo2_jax.models import config as models
from molmo2_jax.models import layers
from molmo2_jax.tools.aot.chips import Chip
from molmo2_jax.train.checks import check_fits
from molmo2_jax.train.config import ConfigError, TrainConfig

Overrides = Mapping[str, object]  # config key -> value

STATE_BYTES = 12  # a parameter, and AdamW's two moments
MICROBATCHES = (1, 2, 4, 8)
MOST_TENSOR = 8  # activations cross the links in every layer: no dense model of these sizes gains by more
MOST_CONTEXT = 16


@dataclasses.dataclass(frozen=True)
class Trial:
    """One compilation. `error`: why there is no report."""

    overrides: dict[str, object]
    fits: bool = False
    step_seconds: float = 0.0
    mfu: float = 0.0
    exposed_seconds: float = 0.0
    peak: int = 0  # bytes of HBM; 0 where the compiler gave up
    compile_seconds: float = 0.0
    error: str = ""

    def rank(self) -> tuple:
        """Smaller is better."""
        return (self.error != "", not self.fits, self.step_seconds if self.fits else self.peak or float("inf"))


def meshes(c: TrainConfig, a: models.Molmo2Config, parameters: int, chip: Chip, chips: int) -> Iterator[Overrides]:
    """Overrides of every mesh of `chips` devices that divides config and model and whose state alone fits a chip."""
    for tensor in _divisors(chips, MOST_TENSOR):
        for context in _divisors(chips // tensor, MOST_CONTEXT):
            for data in _divisors(chips // tensor // context, chips):
                sizes = {"data": data, "fsdp": chips // tensor // context // data, "context": context, "tensor": tensor}
                if _goes(c, a, sizes) and parameters * STATE_BYTES / (sizes["fsdp"] * tensor) < chip.hbm:
                    yield {f"mesh.{axis}": n for axis, n in sizes.items()} | {"data.vision_shards": context}


def _divisors(n: int, most: int) -> list[int]:
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


def _goes(c: TrainConfig, a: models.Molmo2Config, sizes: dict[str, int]) -> bool:
    data = dataclasses.replace(c.data, vision_shards=sizes[sharding.CONTEXT])
    tpu = types.SimpleNamespace(platform="tpu")
    mesh = types.SimpleNamespace(shape=sizes, devices=np.array([tpu], object))  # what check_fits looks at
    try:
        check_fits(dataclasses.replace(c, mesh=sizes, data=data), a, mesh)
    except ValueError:
        return False
    return True


def sweep(
    stages: Sequence[Sequence[Overrides]], run: Callable[[Overrides], Trial], known: Sequence[Trial] = ()
) -> list[Trial]:
    """All trials, the best first: every choice of a stage on top of the best of the stages before.

    Args:
      stages: the choices of each stage; a choice that was tried on the same base is not run again.
      run: compiles with overrides.
      known: trials of an earlier sweep, which are not run again, either.
    """
    before = {_key(trial.overrides): trial for trial in known}
    trials: dict[tuple, Trial] = {}
    base: dict[str, object] = {}
    with tqdm.tqdm(total=sum(len(choices) for choices in stages), unit="compile", desc="sweep") as bar:
        for choices in stages:
            for choice in choices:
                overrides = base | choice
                key = _key(overrides)
                if key not in trials:
                    trials[key] = before[key] if key in before else run(overrides)
                    bar.set_postfix_str(_short(min(trials.values(), key=Trial.rank)))
                bar.update()
            base = dict(min(trials.values(), key=Trial.rank).overrides) if trials else base
    return sorted(trials.values(), key=Trial.rank)


def _key(overrides: Overrides) -> tuple:
    return tuple(sorted(overrides.items()))


class Kept:
    """The file of a sweep: JSON of what it is of and of the trials so far, written anew after each."""

    def __init__(self, path: pathlib.Path, c: TrainConfig, topology: str):
        """Raises ConfigError where the file is of another sweep."""
        self._path, self.trials = path, []
        self._of = json.loads(json.dumps({"topology": topology, "config": dataclasses.asdict(c)}))
        if path.exists():
            there = json.loads(path.read_text())
            if there["of"] != self._of:
                raise ConfigError(f"--out: {path} is of a sweep of another config or topology; take another folder")
            # What failed is tried again: a host may have been short of memory.
            self.trials = [Trial(**trial) for trial in there["trials"] if not trial["error"]]

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.write(self.trials)

    def write(self, trials: Sequence[Trial]) -> None:
        text = json.dumps({"of": self._of, "trials": [dataclasses.asdict(t) for t in trials]}, indent=1)
        new = self._path.with_suffix(".new")
        new.write_text(text + "\n")
        new.replace(self._path)  # whole or not at all, should the sweep be stopped here


def _short(best: Trial) -> str:
    return f"best {best.step_seconds:.2f} s, MFU {best.mfu:.1%}" if best.fits else "none fits yet"


def stages(c: TrainConfig, mesh_choices: Sequence[Overrides]) -> list[list[Overrides]]:
    """The stages of a sweep of `c`: meshes with what it says of the rest, then each of the rest with the best mesh."""
    own = {"model.remat": c.model.remat, "model.vit_remat": c.model.vit_remat, "microbatches": c.microbatches}
    return [
        [{**mesh, **own} for mesh in mesh_choices],
        [{"model.remat": name} for name in layers.REMAT],
        [{"model.vit_remat": name} for name in layers.REMAT],
        [{"microbatches": n} for n in MICROBATCHES if c.batch % n == 0],
    ]


def compile_apart(arguments: Sequence[str], overrides: Overrides) -> Trial:
    """A trial in a process of its own. `arguments`: flags of `molmo2 aot` that all trials share."""
    with tempfile.TemporaryDirectory() as folder:
        keys = [f"--config.{key}={value}" for key, value in overrides.items()]
        command = [sys.executable, "-m", "molmo2_jax.cli", "aot", *arguments, *keys, f"--out={folder}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        written = pathlib.Path(folder) / "report.json"
        if not written.exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            said = next(
                (line for line in reversed(lines) if line.startswith("molmo2 aot:")), lines[-1] if lines else ""
            )
            return Trial(dict(overrides), error=f"exit status {done.returncode}: {said}")
        report = json.loads(written.read_text())
    kept = {name: report[name] for name in ("fits", "step_seconds", "mfu", "exposed_seconds", "compile_seconds")}
    return Trial(dict(overrides), **kept, peak=report["memory"].get("peak", 0))


def table(trials: Sequence[Trial]) -> str:
    """A line a trial."""
    lines = []
    for t in trials:
        keys = " ".join(
            f"{key.rpartition('.')[2]}={value}" for key, value in t.overrides.items() if key != "data.vision_shards"
        )
        if t.error:
            lines.append(f"{'failed':>24}  {keys}: {t.error}")
        elif t.fits:
            lines.append(f"{t.step_seconds:8.3f} s  MFU {t.mfu:6.1%}  {t.peak / 2**30:6.1f} GiB  {keys}")
        else:
            lines.append(f"{'does not fit':>24}  {keys}")
    return "\n".join(lines) + "\n"
