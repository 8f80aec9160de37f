"""What a compiled step will cost: numbers first (`Report`, as JSON), then the same as a table or Markdown."""

import collections
import dataclasses
import json
from collections.abc import Mapping

from molmo2_jax.sharding import MESH_AXES
from molmo2_jax.tools.aot.chips import GIB, Chip
from molmo2_jax.tools.aot.collectives import describe
from molmo2_jax.tools.aot.hlo import Module
from molmo2_jax.tools.aot.program import Compiled, Program
from molmo2_jax.tools.aot.schedule import Cost, Schedule
from molmo2_jax.tools.aot.workload import Workload

LARGE_GATHER = GIB  # bytes of one all-gather that are worth a warning
TOP = 15


@dataclasses.dataclass(frozen=True)
class Part:
    """Time of a part of the model on one chip, and what share of the peak its products make of it."""

    name: str
    seconds: float
    flops: float  # executed, of one chip
    mxu: float


@dataclasses.dataclass(frozen=True)
class Moved:
    """Collectives of one kind over the same mesh axes, of one step and chip."""

    kind: str
    axes: str
    count: int
    bytes: int
    seconds: float
    exposed: float


@dataclasses.dataclass(frozen=True)
class Top:
    """One of the dearest instructions."""

    name: str
    part: str
    source: str
    times: int
    seconds: float
    mxu: float
    type: str


@dataclasses.dataclass(frozen=True)
class Report:
    """One config on one topology. Seconds are of a step, bytes and executed FLOPs of one chip."""

    setting: dict[str, object]
    versions: dict[str, str]
    fits: bool
    verdict: str
    hbm: int
    memory: dict[str, int]  # empty where the compiler gave up
    compile_seconds: float
    host_peak: int
    model_flops: dict[str, float]  # of the whole batch, by part
    executed_flops: float
    step_seconds: float
    compute_seconds: float
    exposed_seconds: float
    mfu: float
    tokens_per_second: float
    parts: tuple[Part, ...]
    collectives: tuple[Moved, ...]
    top: tuple[Top, ...]
    warnings: tuple[str, ...]


def make(
    program: Program,
    compiled: Compiled,
    chip: Chip,
    load: Workload,
    schedule: Schedule | None,
    module: Module | None,
    topology: str,
    versions: Mapping[str, str],
) -> Report:
    """The report of a compiled program; without a schedule (too big to compile) its times are 0."""
    peak = None if compiled.memory is None else compiled.memory.peak
    fits = peak is not None and peak <= chip.hbm
    costs = () if schedule is None else schedule.costs
    seconds = 0.0 if schedule is None else schedule.seconds
    exposed = 0.0 if schedule is None else schedule.exposed
    flops, chips = sum(load.flops.values()), program.mesh.size
    return Report(
        setting=_setting(program, topology, load),
        versions=dict(versions),
        fits=fits,
        verdict=_verdict(compiled, peak, chip),
        hbm=int(chip.hbm),
        memory={} if peak is None else dataclasses.asdict(compiled.memory) | {"peak": peak},
        compile_seconds=compiled.seconds,
        host_peak=compiled.host_peak,
        model_flops=load.flops,
        executed_flops=sum(c.flops for c in costs),
        step_seconds=seconds,
        compute_seconds=seconds - exposed,
        exposed_seconds=exposed,
        mfu=flops / (seconds * chip.peak * chips) if seconds else 0.0,
        tokens_per_second=load.tokens / seconds if seconds else 0.0,
        parts=_parts(costs, chip),
        collectives=_collectives(costs),
        top=_top(costs, module, chip),
        warnings=_warnings(compiled, schedule),
    )


def _setting(program: Program, topology: str, load: Workload) -> dict[str, object]:
    c = program.config
    return {
        "model": program.architecture.name,
        "parameters": program.parameters,
        "topology": topology,
        "chips": program.mesh.size,
        "mesh": {axis: c.mesh[axis] for axis in MESH_AXES},
        "batch": c.batch,
        "microbatches": c.microbatches,
        "seq_len": c.data.seq_len,
        "crops": c.data.crops,
        "visual_tokens": load.visual,
        "attention": c.model.attention,
        "remat": c.model.remat,
        "vit_remat": c.model.vit_remat,
        "compiler": dict(c.compiler),
    }


def _verdict(compiled: Compiled, peak: int | None, chip: Chip) -> str:
    if peak is None:
        line = next((x for x in compiled.too_big.splitlines() if "memory" in x), compiled.too_big)
        return f"DOES NOT FIT: {line.strip()}"
    words = "fits" if peak <= chip.hbm else "DOES NOT FIT"
    return f"{words}: {peak / GIB:.2f} GiB at the peak of {chip.hbm / GIB:.2f} GiB on {chip.name}"


def _parts(costs: tuple[Cost, ...], chip: Chip) -> tuple[Part, ...]:
    seconds, flops = collections.Counter(), collections.Counter()
    for c in costs:
        seconds[c.part] += c.seconds
        flops[c.part] += c.flops
    return tuple(Part(n, s, flops[n], _share(flops[n], s, chip)) for n, s in seconds.most_common())


def _share(flops: float, seconds: float, chip: Chip) -> float:
    return flops / (seconds * chip.peak) if seconds else 0.0


def _collectives(costs: tuple[Cost, ...]) -> tuple[Moved, ...]:
    groups = collections.defaultdict(list)
    for c in costs:
        if c.collective is not None:
            groups[c.collective.kind, describe(c.collective.axes)].append(c)
    found = [
        Moved(
            kind,
            axes,
            sum(c.times for c in group),
            sum(c.times * c.collective.bytes for c in group),
            sum(c.seconds + c.hidden for c in group),
            sum(c.seconds for c in group),
        )
        for (kind, axes), group in groups.items()
    ]
    return tuple(sorted(found, key=lambda m: -m.seconds))


def _top(costs: tuple[Cost, ...], module: Module | None, chip: Chip) -> tuple[Top, ...]:
    dearest = sorted(costs, key=lambda c: -c.seconds)[:TOP]
    return tuple(
        Top(
            c.instruction.name,
            c.part,
            _origin(module, c),
            c.times,
            c.seconds,
            _share(c.flops, c.seconds, chip),
            c.instruction.type[:70],
        )
        for c in dearest
    )


def _origin(module: Module, c: Cost) -> str:
    """File, function and the last steps of the op_name: "llm.py:Mlp.__call__ BSD,DF->BSF/dot_general (backward)"."""
    frames, name = module.source(c.instruction), c.instruction.op_name
    if not name:
        inner = [x.op_name for called in c.instruction.called for x in reversed(module.computations[called])]
        name = next((n for n in inner if n), "")
    here = next((f for f in frames if "layers.py" not in f and "ops/linear.py" not in f), *frames[:1] or ("",))
    again = "again" if "rematted" in name else "backward" if "transpose" in name else "forward"
    return f"{here.rsplit('/', 1)[-1]} {'/'.join(name.split('/')[-2:])} ({again})"


def _warnings(compiled: Compiled, schedule: Schedule | None) -> tuple[str, ...]:
    found = list(compiled.messages)
    if schedule is None:
        return tuple(found)
    found += [f"{text}: counted once, the step may take longer than is said" for text in schedule.unknown]
    for c in schedule.costs:
        if c.collective is not None and c.collective.kind != "reduce-scatter" and c.collective.bytes > LARGE_GATHER:
            found.append(
                f"{c.collective.kind} of {c.collective.bytes / GIB:.2f} GiB over {describe(c.collective.axes)}, "
                f"{c.times} times: {c.instruction.name} ({c.instruction.op_name or c.instruction.type[:60]})"
            )
    again = [c for c in schedule.costs if ".remat" in c.instruction.name]
    if again:
        found.append(
            f"the compiler computes {len(again)} values again to save memory: {sum(c.seconds for c in again):.3f} s"
        )
    if schedule.guessed > 0.02 * schedule.seconds:
        found.append(f"{schedule.guessed:.3f} s are of instructions without an estimate, by the bytes they touch")
    return tuple(found)


def to_json(report: Report) -> str:
    """The whole report."""
    return json.dumps(dataclasses.asdict(report), indent=1)
