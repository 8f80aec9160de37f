"""From a config and a topology to a report: lower, compile, read, add up."""

import dataclasses
import importlib.metadata
import json
import pathlib

import jax
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.models import params as parameters
from molmo2_jax.tools.aot import hlo, kernels, report, sweep, topology
from molmo2_jax.tools.aot.chips import chip
from molmo2_jax.tools.aot.collectives import Place
from molmo2_jax.tools.aot.program import compile_program, lower
from molmo2_jax.tools.aot.report import Report
from molmo2_jax.tools.aot.schedule import Timer
from molmo2_jax.tools.aot.workload import workload
from molmo2_jax.train import init_from
from molmo2_jax.train.config import ConfigError, TrainConfig


def analyse(c: TrainConfig, topology_name: str, dump: pathlib.Path | None = None) -> Report:
    """Compiles a config's step for a topology and reads what came out. `dump`: a folder for the program itself.

    Raises:
      ConfigError: no libtpu, no such topology, or a config that does not go with the mesh.
    """
    devices = topology.devices(topology_name)
    program = lower(c, devices)
    compiled = compile_program(program.lowered)
    one = chip(devices[0].device_kind)
    load = workload(c, program.architecture, program.shape)
    module = schedule = None
    if compiled.text:
        module = hlo.parse(compiled.text)
        coords = np.array([device.coords for device in program.mesh.devices.flat])
        slices = len({getattr(device, "slice_index", 0) for device in devices})
        place = Place(program.mesh.axis_names, program.mesh.devices.shape, coords, slices)
        schedule = Timer(
            module, one, place, load.trips, lambda i: kernels.cost(module, i, one, c.model.token_order)
        ).schedule()
    if dump is not None:
        _dump(dump, compiled, load)
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")}
    return report.make(program, compiled, one, load, schedule, module, topology_name, versions)


def stages(c: TrainConfig, topology_name: str) -> list[list[sweep.Overrides]]:
    """What a sweep of a config over a topology tries."""
    devices = topology.devices(topology_name)
    with jax.set_mesh(sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), devices[:1])):
        architecture = init_from.architecture(c.model.preset)
        count = parameters.structure(architecture).count()
    found = list(sweep.meshes(c, architecture, count, chip(devices[0].device_kind), len(devices)))
    if not found:
        raise ConfigError(f"--sweep: no mesh of {len(devices)} chips divides this config")
    return sweep.stages(c, found)


def _dump(folder: pathlib.Path, compiled, load) -> None:
    """step.hlo.txt, memory.json and model_flops.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "step.hlo.txt").write_text(compiled.text or compiled.too_big)
    memory = None if compiled.memory is None else dataclasses.asdict(compiled.memory) | {"peak": compiled.memory.peak}
    (folder / "memory.json").write_text(json.dumps(memory, indent=1))
    (folder / "model_flops.json").write_text(json.dumps(load.flops | {"total": sum(load.flops.values())}, indent=1))
