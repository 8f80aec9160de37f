"""The training step of a config as a run would compile it, for devices that are not there."""

import contextlib
import dataclasses
import os
import resource
import threading
import time
from collections.abc import Iterator

import jax

from molmo2_jax import sharding
from molmo2_jax.data import schema
from molmo2_jax.models import params as parameters
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.train import init_from, optim
from molmo2_jax.train.checks import check_fits, check_values
from molmo2_jax.train.config import ConfigError, TrainConfig
from molmo2_jax.train.step import abstract_state, jit_step

_MESSAGES = ("rematerializ", "Involuntary", "full gather")


@dataclasses.dataclass(frozen=True)
class Program:
    """A lowered step."""

    config: TrainConfig
    architecture: Molmo2Config
    shape: schema.RowShape
    mesh: jax.sharding.Mesh
    parameters: int
    lowered: jax.stages.Lowered


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device's HBM. What is donated is an argument and an output at once (`alias`)."""

    arguments: int
    temporaries: int
    output: int
    alias: int
    code: int

    @property
    def peak(self) -> int:
        return self.arguments + self.temporaries + self.output - self.alias + self.code


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler gave. `too_big` is its complaint where the program does not fit, and then there is no text."""

    text: str
    memory: Memory | None
    seconds: float
    host_peak: int  # bytes, of this process
    messages: tuple[str, ...]  # its warnings of work that nobody asked for
    too_big: str


def lower(c: TrainConfig, devices) -> Program:
    """Traces the step of a config from abstract state and rows. ConfigError where mesh and config do not fit."""
    try:
        check_values(c)
        mesh = sharding.make_mesh(c.mesh, devices)
        with jax.set_mesh(mesh):
            architecture = init_from.architecture(c.model.preset)
            check_fits(c, architecture, mesh)
            structure = parameters.structure(architecture)
        assigned = optim.assign_groups(structure.shapes, c.optim)
    except ValueError as error:
        raise ConfigError(f"config: {error}") from error
    optimizer = optim.make_optimizer(c.optim, assigned, c.steps)
    shape = schema.RowShape(c.data.seq_len, c.data.crops, c.data.pooled, c.data.vision_shards)
    with jax.set_mesh(mesh):
        state = abstract_state(structure, mesh, assigned, optimizer)
        lowered = jit_step(structure, c, assigned, optimizer, mesh).lower(state, abstract_rows(shape, c.batch, mesh))
    return Program(c, architecture, shape, mesh, structure.count(), lowered)


def abstract_rows(shape: schema.RowShape, batch: int, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of data/schema.py for a batch, placed as sharding.put_rows places them."""
    out = {}
    for name, field in schema.FIELDS.items():
        dims = (batch, *schema.row_dims(shape, name))
        spec = jax.P(sharding.ROWS, sharding.CONTEXT, *(None,) * (len(dims) - 2))
        out[name] = jax.ShapeDtypeStruct(dims, field.dtype, sharding=jax.NamedSharding(mesh, spec))
    return out


def compile_program(lowered: jax.stages.Lowered) -> Compiled:
    """Compiles for the topology. ConfigError where the compiler refuses, but for what does not fit."""
    start, too_big, compiled = time.perf_counter(), "", None
    with _listening() as lines:
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise ConfigError(f"the compiler refuses: {error}") from error
            too_big = str(error)
    seconds = time.perf_counter() - start
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    messages = tuple(dict.fromkeys(line.strip() for line in lines if any(word in line for word in _MESSAGES)))
    if compiled is None:
        return Compiled("", None, seconds, host, messages, too_big)
    m = compiled.memory_analysis()
    memory = Memory(
        m.argument_size_in_bytes,
        m.temp_size_in_bytes,
        m.output_size_in_bytes,
        m.alias_size_in_bytes,
        m.generated_code_size_in_bytes,
    )
    return Compiled(compiled.as_text(), memory, seconds, host, messages, "")


@contextlib.contextmanager
def _listening() -> Iterator[list[str]]:
    """Collects what the compiler's own code writes to stderr, and passes it on."""
    lines, stderr = [], os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)

    def pass_on():
        with os.fdopen(reading, errors="replace") as pipe:
            for line in pipe:
                lines.append(line)
                os.write(stderr, line.encode())

    thread = threading.Thread(target=pass_on)
    thread.start()
    try:
        yield lines
    finally:
        os.dup2(stderr, 2)  # closes the pipe's last writing end
        thread.join()
        os.close(stderr)
