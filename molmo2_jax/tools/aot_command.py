"""`molmo2 aot`."""

import pathlib
import sys

import jax
from absl import flags
from ml_collections import config_flags

from molmo2_jax.tools import command
from molmo2_jax.tools.aot import analysis, report, sweep, table
from molmo2_jax.train.config import ConfigError, TrainConfig, read

TOO_BIG = 3  # exit status where the step does not fit the chips' memory

_HELP = {
    "config": "Experiment file; keys after it: --config.mesh.fsdp=16.",
    "topology": "Slice to compile for: v4, v5e, v5p, v6e or 7x and its size in chips, as v5p:4x4x4; 2xv5p:4x4x4 are "
    "two of them over DCN.",
    "out": "Folder for report.json and report.md; of a sweep for sweep.json, from which one that was stopped goes on.",
    "dump": "Folder for the compiled program: step.hlo.txt, memory.json, model_flops.json.",
    "sweep": "Look for the fastest mesh, remat policies and microbatches that fit; each trial is a compilation.",
}


def main(argv: list[str]) -> None:
    """Compiles the training step for TPUs that are not there and reports its cost; status 3 if it does not fit."""
    config = config_flags.DEFINE_config_file("config", None, _HELP["config"])
    topology = flags.DEFINE_string("topology", None, _HELP["topology"])
    out = flags.DEFINE_string("out", None, _HELP["out"])
    dump = flags.DEFINE_string("dump", None, _HELP["dump"])
    sweeping = flags.DEFINE_bool("sweep", False, _HELP["sweep"])
    flags.mark_flags_as_required(["config", "topology"])

    def aot() -> int:
        jax.config.update("jax_platforms", "cpu")  # where there are TPUs they are left alone
        c = read(config.value.to_dict())
        if sweeping.value:
            if dump.value is not None:
                raise ConfigError("--dump: a sweep keeps no programs; compile its best without --sweep")
            return _sweep(c, topology.value, _folder(out.value), argv[1:])
        return _report(c, topology.value, _folder(out.value), _folder(dump.value))

    command.run(aot, argv)


def _folder(flag: str | None) -> pathlib.Path | None:
    if flag is None:
        return None
    folder = pathlib.Path(flag)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _report(c: TrainConfig, topology: str, out: pathlib.Path | None, dump: pathlib.Path | None) -> int:
    done = analysis.analyse(c, topology, dump)
    if out is not None:
        (out / "report.json").write_text(report.to_json(done))
        (out / "report.md").write_text(table.markdown(done))
    print(table.text(done), end="")
    if not done.fits:
        print(f"molmo2 aot: {done.verdict}", file=sys.stderr)
    return 0 if done.fits else TOO_BIG


def _sweep(c: TrainConfig, topology: str, out: pathlib.Path | None, arguments: list[str]) -> int:
    own = ("--sweep", "--out", "-sweep", "-out")
    shared = [a for n, a in enumerate(arguments) if not a.startswith(own) and (n == 0 or arguments[n - 1] not in own)]
    kept = None if out is None else sweep.Kept(out / "sweep.json", c, topology)

    def run(overrides: sweep.Overrides) -> sweep.Trial:
        trial = sweep.compile_apart(shared, overrides)
        if kept is not None:
            kept.add(trial)
        return trial

    trials = sweep.sweep(analysis.stages(c, topology), run, kept.trials if kept else ())
    if kept is not None:
        kept.write(trials)
    print(sweep.table(trials), end="")
    if not trials or not trials[0].fits:
        print("molmo2 aot: none of these fits", file=sys.stderr)
        return TOO_BIG
    return 0
