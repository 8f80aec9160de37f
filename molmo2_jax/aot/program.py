"""The training step as a run compiles it, lowered and compiled for ahead-of-time targets."""

import contextlib
import dataclasses
import os
import resource
import threading
import time
from collections.abc import Iterator

import jax

from data_pipelines.config import ConfigError
from data_pipelines.packing import schema
from molmo2_jax import sharding
from molmo2_jax.train.setup import Setup

_WARNINGS = ("rematerializ", "Involuntary", "full gather")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device's HBM. `alias`: donated arguments, which are outputs, too."""

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
    """The compiler's result. `too_big`: its error if the program does not fit into memory; `text` is then empty."""

    text: str
    memory: Memory | None
    seconds: float
    host_peak: int  # peak bytes of this process
    messages: tuple[str, ...]  # the compiler's warnings of work that the program does not ask for
    too_big: str


def lower(setup: Setup) -> jax.stages.Lowered:
    """Lowers the training step of `setup` from abstract state and rows."""
    with jax.set_mesh(setup.mesh):
        return setup.step.lower(setup.state, abstract_rows(setup.row, setup.batch, setup.mesh))


def abstract_rows(shape: schema.RowShape, batch: int, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of a batch: the arrays of packing/schema.py, sharded as by `sharding.put_rows`."""
    out = {}
    for name, field in schema.FIELDS.items():
        dims = (batch, *schema.row_dims(shape, name))
        placed = jax.NamedSharding(mesh, sharding.row_spec(len(dims)))
        out[name] = jax.ShapeDtypeStruct(dims, field.dtype, sharding=placed)
    return out


def compile_program(lowered: jax.stages.Lowered) -> Compiled:
    """Compiles for the devices that the step was lowered for.

    Raises:
      ConfigError: the compiler rejects the program for another reason than its size.
    """
    start, too_big, compiled = time.perf_counter(), "", None
    with _capture_stderr() as lines:
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise ConfigError(f"the compiler rejects the step: {error}") from error
            too_big = str(error)
    seconds = time.perf_counter() - start
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    messages = tuple(dict.fromkeys(line.strip() for line in lines if any(word in line for word in _WARNINGS)))
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
def _capture_stderr() -> Iterator[list[str]]:
    """Collects the lines that C++ code of this process writes to stderr, and forwards them."""
    lines, stderr = [], os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    os.close(writing)

    def forward() -> None:
        with os.fdopen(reading, errors="replace") as pipe:
            for line in pipe:
                lines.append(line)
                os.write(stderr, line.encode())

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        yield lines
    finally:
        os.dup2(stderr, 2)  # closes the last write end of the pipe
        thread.join()
        os.close(stderr)
