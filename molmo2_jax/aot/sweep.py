"""Searches for the mesh, the remat policies and the microbatches with which a step fits and is fastest.

Each stage changes one setting and starts from the best trial so far:

    mesh           all meshes that fit the config, with its other values      data=1 fsdp=16 context=4 tensor=1, ...
    model.remat    every policy of the LLM, with the best mesh                "attention", "qkv", ...
    model.vit_remat, microbatches                                             likewise

A trial that fits is better than one that does not. Of those that fit the shorter step is better, of the others the
smaller peak. Each trial compiles in its own process, since libtpu reads its options once per process and memory is
freed at its end. A sweep of a large model takes hours (minutes per trial): finished trials are saved to a
file, from which an interrupted sweep continues.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import tqdm

from data_pipelines.config import ConfigError
from molmo2_jax.aot.chips import Chip
from molmo2_jax.models import layers
from molmo2_jax.models.run_config import RunConfig

Overrides = Mapping[str, object]  # config key -> value

STATE_BYTES = 12  # a parameter, and AdamW's two moments
MICROBATCHES = (1, 2, 4, 8)
MOST_TENSOR = 8  # activations are communicated in every layer: dense models of these sizes gain nothing by more
MOST_CONTEXT = 16


@dataclasses.dataclass(frozen=True)
class Trial:
    """One compilation. `error`: why there is no report."""

    overrides: dict[str, object]
    fits: bool = False
    step_seconds: float = 0.0
    mfu: float = 0.0
    exposed_seconds: float = 0.0
    peak: int = 0  # bytes of HBM; 0 if the compiler ran out of memory
    compile_seconds: float = 0.0
    error: str = ""

    def rank(self) -> tuple:
        """Smaller is better."""
        return (self.error != "", not self.fits, self.step_seconds if self.fits else self.peak or float("inf"))


def meshes(fits: Callable[[Mapping[str, int]], bool], parameters: int, chip: Chip, chips: int) -> Iterator[Overrides]:
    """Overrides of every mesh of `chips` devices for which `fits(sizes)` holds and the state alone fits a chip."""
    for tensor in _divisors(chips, MOST_TENSOR):
        for context in _divisors(chips // tensor, MOST_CONTEXT):
            for data in _divisors(chips // tensor // context, chips):
                sizes = {"data": data, "fsdp": chips // tensor // context // data, "context": context, "tensor": tensor}
                if fits(sizes) and parameters * STATE_BYTES / (sizes["fsdp"] * tensor) < chip.hbm:
                    yield {f"mesh.{axis}": n for axis, n in sizes.items()}


def _divisors(n: int, most: int) -> list[int]:
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


def sweep(
    stages: Sequence[Sequence[Overrides]], run: Callable[[Overrides], Trial], known: Sequence[Trial] = ()
) -> list[Trial]:
    """All trials, the best first: every choice of a stage on top of the best of the stages before it.

    Args:
      stages: the choices of each stage. No combination is run twice.
      run: compiles with these overrides.
      known: trials of an interrupted sweep, which are not run again.
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
                    bar.set_postfix_str(_summary(min(trials.values(), key=Trial.rank)))
                bar.update()
            base = dict(min(trials.values(), key=Trial.rank).overrides) if trials else base
    return sorted(trials.values(), key=Trial.rank)


def _key(overrides: Overrides) -> tuple:
    return tuple(sorted(overrides.items()))


class TrialLog:
    """The file of a sweep: JSON of its topology, its config and the trials so far, rewritten after each trial."""

    def __init__(self, path: pathlib.Path, config: Mapping, topology: str):
        """`config`: of the run, as JSON.

        Raises:
          ConfigError: the file is of another sweep.
        """
        self._path, self.trials = path, []
        self._sweep = {"topology": topology, "config": config}
        if path.exists():
            saved = json.loads(path.read_text())
            if saved["sweep"] != self._sweep:
                raise ConfigError(
                    f"--out: {path} belongs to a sweep of another config or topology; choose another or delete it"
                )
            # Failed trials run again: the host may have been short of memory.
            self.trials = [Trial(**trial) for trial in saved["trials"] if not trial["error"]]

    def add(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.write(self.trials)

    def write(self, trials: Sequence[Trial]) -> None:
        text = json.dumps({"sweep": self._sweep, "trials": [dataclasses.asdict(t) for t in trials]}, indent=1)
        new = self._path.with_suffix(".new")
        new.write_text(text + "\n")
        new.replace(self._path)  # atomic, if the sweep is interrupted here


def _summary(best: Trial) -> str:
    return f"best {best.step_seconds:.2f} s, MFU {best.mfu:.1%}" if best.fits else "none fits yet"


def stages(
    run: RunConfig, mesh_choices: Sequence[Overrides], *, batch: int, microbatches: int
) -> list[list[Overrides]]:
    """The stages of a sweep: meshes with the config's other values, then each other setting."""
    current = {"model.remat": run.remat, "model.vit_remat": run.vit_remat, "microbatches": microbatches}
    return [
        [{**mesh, **current} for mesh in mesh_choices],
        [{"model.remat": name} for name in layers.REMAT],
        [{"model.vit_remat": name} for name in layers.REMAT],
        [{"microbatches": n} for n in MICROBATCHES if batch % n == 0],
    ]


def compile_in_subprocess(arguments: Sequence[str], overrides: Overrides) -> Trial:
    """A trial in its own process. `arguments`: flags of `molmo2 aot` that all trials share."""
    with tempfile.TemporaryDirectory() as folder:
        keys = [f"--config.{key}={value}" for key, value in overrides.items()]
        command = [sys.executable, "-m", "molmo2_jax.cli", "aot", *arguments, *keys, f"--out={folder}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        path = pathlib.Path(folder) / "report.json"
        if not path.exists():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            errors = [line for line in lines if line.startswith("molmo2 aot:")] or lines or [""]
            return Trial(dict(overrides), error=f"exit status {done.returncode}: {errors[-1]}")
        report = json.loads(path.read_text())
    values = {name: report[name] for name in ("fits", "step_seconds", "mfu", "exposed_seconds", "compile_seconds")}
    return Trial(dict(overrides), **values, peak=report["memory"].get("peak", 0))


def table(trials: Sequence[Trial]) -> str:
    """One line per trial."""
    lines = []
    for t in trials:
        keys = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in t.overrides.items())
        if t.error:
            lines.append(f"{'failed':>24}  {keys}: {t.error}")
        elif t.fits:
            lines.append(f"{t.step_seconds:8.3f} s  MFU {t.mfu:6.1%}  {t.peak / 2**30:6.1f} GiB  {keys}")
        else:
            lines.append(f"{'does not fit':>24}  {keys}")
    return "\n".join(lines) + "\n"
