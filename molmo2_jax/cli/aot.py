"""`molmo2 aot`: compiles the training step for a TPU slice without that slice, and reports its cost."""

import pathlib
import sys
from collections.abc import Sequence

import jax
from absl import flags
from ml_collections import config_flags

from data_pipelines.config import ConfigError
from molmo2_jax.aot import analysis, report, report_table, sweep, topology
from molmo2_jax.aot.chips import find_chip
from molmo2_jax.cli import command
from molmo2_jax.train.config import read
from molmo2_jax.train.setup import Setup, mesh_test, set_up
from molmo2_jax.weights.checkpoint_files import to_json

DOES_NOT_FIT = 3  # exit status

_HELP = {
    "config": "Experiment file; keys after it: --config.mesh.fsdp=16.",
    "topology": "Slice to compile for: v4, v5e, v5p, v6e or 7x and its size in chips, such as v5p:4x4x4; 2xv5p:4x4x4 "
    "is two slices connected by DCN.",
    "out": "Folder for report.json and report.md; of a sweep for sweep.json, from which an interrupted one continues.",
    "dump": "Folder for the compiled program: step.hlo.txt, memory.json, model_flops.json.",
    "sweep": "Search for the fastest mesh, remat policies and microbatches that fit; each trial is a compilation.",
}


def main(argv: list[str]) -> None:
    """Compiles the training step ahead of time for a TPU slice and reports its cost; status 3 if it does not fit."""
    config = config_flags.DEFINE_config_file("config", None, _HELP["config"])
    topology_flag = flags.DEFINE_string("topology", None, _HELP["topology"])
    out = flags.DEFINE_string("out", None, _HELP["out"])
    dump = flags.DEFINE_string("dump", None, _HELP["dump"])
    sweeping = flags.DEFINE_bool("sweep", False, _HELP["sweep"])
    flags.mark_flags_as_required(["config", "topology"])

    def aot() -> int:
        jax.config.update("jax_platforms", "cpu")  # does not occupy the TPUs of this host
        if sweeping.value and dump.value is not None:
            raise ConfigError("--dump: a sweep dumps no programs; compile its best trial without --sweep")
        c = read(config.value.to_dict())
        devices = topology.devices(topology_flag.value)
        if not sweeping.value:
            setup = set_up(c, devices)
            return _report(setup, topology_flag.value, _make_folder(out.value), _make_folder(dump.value))
        count, fits = mesh_test(c, devices[0])
        meshes = list(sweep.meshes(fits, count, find_chip(devices[0].device_kind), len(devices)))
        if not meshes:
            raise ConfigError(f"--sweep: no mesh of {len(devices)} chips fits this config")
        stages = sweep.stages(c.model, meshes, batch=c.batch, microbatches=c.microbatches)
        folder = _make_folder(out.value)
        log = None if folder is None else sweep.TrialLog(folder / "sweep.json", to_json(c), topology_flag.value)
        return _sweep(stages, log, argv[1:])

    command.run(aot, argv)


def _make_folder(flag: str | None) -> pathlib.Path | None:
    if flag is None:
        return None
    folder = pathlib.Path(flag)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _report(setup: Setup, topology_name: str, out: pathlib.Path | None, dump: pathlib.Path | None) -> int:
    result = analysis.analyse(setup, topology_name, dump)
    if out is not None:
        (out / "report.json").write_text(report.to_json(result))
        (out / "report.md").write_text(report_table.markdown(result))
    print(report_table.text(result), end="")
    if not result.fits:
        print(f"molmo2 aot: {result.verdict}", file=sys.stderr)
    return 0 if result.fits else DOES_NOT_FIT


def _sweep(stages: Sequence[Sequence[sweep.Overrides]], log: sweep.TrialLog | None, arguments: Sequence[str]) -> int:
    shared = _trial_flags(arguments)

    def compile_trial(overrides: sweep.Overrides) -> sweep.Trial:
        trial = sweep.compile_in_subprocess(shared, overrides)
        if log is not None:
            log.add(trial)
        return trial

    trials = sweep.sweep(stages, compile_trial, log.trials if log else ())
    if log is not None:
        log.write(trials)
    print(sweep.table(trials), end="")
    if not trials or not trials[0].fits:
        print("molmo2 aot: no trial fits", file=sys.stderr)
        return DOES_NOT_FIT
    return 0


def _trial_flags(arguments: Sequence[str]) -> list[str]:
    """The arguments of a sweep without --sweep and --out, which are not for its trials."""
    before = ("", *arguments)
    return [
        argument
        for previous, argument in zip(before, arguments, strict=False)
        if not argument.startswith(("--sweep", "-sweep", "--out", "-out")) and previous not in ("--out", "-out")
    ]
