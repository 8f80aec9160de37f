"""From a run and a topology to a report: lower, compile, parse, time, report."""

import dataclasses
import functools
import importlib.metadata
import json
import pathlib

import jax
import numpy as np

from molmo2_jax.aot import hlo, kernel_cost, report
from molmo2_jax.aot.chips import find_chip
from molmo2_jax.aot.collectives import DeviceLayout
from molmo2_jax.aot.program import Compiled, compile_program, lower
from molmo2_jax.aot.report import Report
from molmo2_jax.aot.schedule import Timer
from molmo2_jax.aot.workload import Workload, workload
from molmo2_jax.train.setup import Setup


def analyse(setup: Setup, topology_name: str, dump: pathlib.Path | None = None) -> Report:
    """Compiles the training step of `setup` for the ahead-of-time targets in its mesh, and reports its cost.

    Args:
      topology_name: for the report.
      dump: a folder for the compiled program, its memory and the model's FLOPs.
    """
    compiled = compile_program(lower(setup))
    run, mesh = setup.run, dict(setup.mesh.shape)
    chip = find_chip(setup.mesh.devices.flat[0].device_kind)
    load = workload(run, setup.architecture, setup.row, mesh, batch=setup.batch, microbatches=setup.microbatches)
    module = schedule = None
    if compiled.text:
        module = hlo.parse(compiled.text)
        kernel_seconds = functools.partial(kernel_cost.cost, module, chip=chip, token_order=run.token_order)
        schedule = Timer(module, chip, _layout(setup.mesh), load.trips, kernel_seconds).schedule()
    if dump is not None:
        _dump(dump, compiled, load)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}
    return report.make(setup, compiled, chip, load, schedule, module, topology_name, versions)


def _layout(mesh: jax.sharding.Mesh) -> DeviceLayout:
    devices = list(mesh.devices.flat)
    coords = np.array([device.coords for device in devices])
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    return DeviceLayout(mesh.axis_names, mesh.devices.shape, coords, slices)


def _dump(folder: pathlib.Path, compiled: Compiled, load: Workload) -> None:
    """Writes step.hlo.txt, memory.json and model_flops.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "step.hlo.txt").write_text(compiled.text or compiled.too_big)
    memory = None if compiled.memory is None else dataclasses.asdict(compiled.memory) | {"peak": compiled.memory.peak}
    (folder / "memory.json").write_text(json.dumps(memory, indent=1))
    (folder / "model_flops.json").write_text(json.dumps(load.flops | {"total": sum(load.flops.values())}, indent=1))
