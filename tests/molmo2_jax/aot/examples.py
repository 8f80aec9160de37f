"""A report made by hand, and its parts."""

import types

from molmo2_jax.aot import report
from molmo2_jax.aot.chips import GIB
from molmo2_jax.aot.program import Compiled, Memory
from molmo2_jax.aot.schedule import Schedule
from molmo2_jax.aot.workload import Workload
from molmo2_jax.models.config import TINY
from tests.molmo2_jax.aot.programs import V5P
from tests.molmo2_jax.train import small_run

MESH = {"data": 1, "fsdp": 2, "context": 1, "tensor": 2}


def example_run() -> types.SimpleNamespace:
    """The fields of a Setup that a report shows."""
    c = small_run.config(mesh=MESH)
    return types.SimpleNamespace(
        run=c.model,
        row=c.data.row,
        batch=c.batch,
        microbatches=c.microbatches,
        compiler=c.compiler,
        architecture=TINY,
        mesh=types.SimpleNamespace(size=4, shape=MESH),
        structure=types.SimpleNamespace(count=lambda: 1000),
    )


def workload() -> Workload:
    return Workload(
        tokens=4096, visual=10, flops={"LLM matmuls": 3e14, "ViT": 1e14}, loss_chunks=2, attention_tiles=3, ring_tiles=4
    )


def example_report() -> report.Report:
    compiled = Compiled("text", Memory(GIB, GIB, GIB, GIB, 0), 10.0, GIB, (), "")
    return report.make(example_run(), compiled, V5P, workload(), Schedule((), (), 0.0), None, "v5p:2x2x1", {})
