"""The predicted cost of a compiled step as one `Report`, with its JSON; report_table.py makes tables of it."""

import collections
import dataclasses
import json
from collections.abc import Mapping

from molmo2_jax.aot.chips import GIB, Chip
from molmo2_jax.aot.collectives import axes_label
from molmo2_jax.aot.hlo import Module
from molmo2_jax.aot.program import Compiled
from molmo2_jax.aot.schedule import Cost, Schedule
from molmo2_jax.aot.workload import Workload
from molmo2_jax.sharding import MESH_AXES
from molmo2_jax.train.setup import Setup

LARGE_GATHER = GIB  # bytes of a collective that give a warning
TOP = 15  # instructions listed
_SHARED_FILES = ("layers.py", "ops/linear.py", "ops/gradient_reduction.py")  # their callers say more


@dataclasses.dataclass(frozen=True)
class Part:
    """Time of a part of the model on one chip. `mxu`: its executed FLOPs / (seconds x peak)."""

    name: str
    seconds: float
    flops: float  # executed, per chip
    mxu: float


@dataclasses.dataclass(frozen=True)
class CollectiveTotal:
    """All collectives of one kind over the same mesh axes, per step and chip."""

    kind: str
    axes: str
    count: int
    bytes: int
    seconds: float
    exposed: float


@dataclasses.dataclass(frozen=True)
class TopInstruction:
    """One of the most expensive instructions."""

    name: str
    part: str
    source: str
    times: int
    seconds: float
    mxu: float
    type: str


@dataclasses.dataclass(frozen=True)
class Report:
    """One config on one topology. Seconds are per step; bytes and executed FLOPs are per chip."""

    setting: dict[str, object]
    versions: dict[str, str]
    fits: bool
    verdict: str
    hbm: int
    memory: dict[str, int]  # empty if the compiler ran out of memory
    compile_seconds: float
    host_peak: int
    model_flops: dict[str, float]  # {part: FLOPs of the whole batch}
    executed_flops: float
    step_seconds: float
    compute_seconds: float
    exposed_seconds: float
    mfu: float
    tokens_per_second: float
    parts: tuple[Part, ...]
    collectives: tuple[CollectiveTotal, ...]
    top: tuple[TopInstruction, ...]
    warnings: tuple[str, ...]


def make(
    setup: Setup,
    compiled: Compiled,
    chip: Chip,
    load: Workload,
    schedule: Schedule | None,
    module: Module | None,
    topology: str,
    versions: Mapping[str, str],
) -> Report:
    """The report of a compiled program. Without a schedule (the program does not fit) its times are 0."""
    peak = None if compiled.memory is None else compiled.memory.peak
    fits = peak is not None and peak <= chip.hbm
    costs = () if schedule is None else schedule.costs
    seconds = 0.0 if schedule is None else schedule.seconds
    exposed = 0.0 if schedule is None else schedule.exposed
    flops, chips = sum(load.flops.values()), setup.mesh.size
    return Report(
        setting=_setting(setup, topology, load),
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


def _setting(setup: Setup, topology: str, load: Workload) -> dict[str, object]:
    run = setup.run
    return {
        "model": setup.architecture.name,
        "parameters": setup.structure.count(),
        "topology": topology,
        "chips": setup.mesh.size,
        "mesh": {axis: setup.mesh.shape[axis] for axis in MESH_AXES},
        "batch": setup.batch,
        "microbatches": setup.microbatches,
        "seq_len": setup.row.seq_len,
        "crops": setup.row.crops,
        "visual_tokens": load.visual,
        "attention": run.attention,
        "remat": run.remat,
        "vit_remat": run.vit_remat,
        "compiler": dict(setup.compiler),
    }


def _verdict(compiled: Compiled, peak: int | None, chip: Chip) -> str:
    if peak is None:
        line = next((x for x in compiled.too_big.splitlines() if "memory" in x), compiled.too_big)
        return f"DOES NOT FIT: {line.strip()}"
    fits = "fits" if peak <= chip.hbm else "DOES NOT FIT"
    return f"{fits}: {peak / GIB:.2f} GiB peak of {chip.hbm / GIB:.2f} GiB on {chip.name}"


def _parts(costs: tuple[Cost, ...], chip: Chip) -> tuple[Part, ...]:
    seconds, flops = collections.Counter(), collections.Counter()
    for c in costs:
        seconds[c.part] += c.seconds
        flops[c.part] += c.flops
    return tuple(Part(n, s, flops[n], _share(flops[n], s, chip)) for n, s in seconds.most_common())


def _share(flops: float, seconds: float, chip: Chip) -> float:
    return flops / (seconds * chip.peak) if seconds else 0.0


def _collectives(costs: tuple[Cost, ...]) -> tuple[CollectiveTotal, ...]:
    groups = collections.defaultdict(list)
    for c in costs:
        if c.collective is not None:
            groups[c.collective.kind, axes_label(c.collective.axes)].append(c)
    found = [
        CollectiveTotal(
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


def _top(costs: tuple[Cost, ...], module: Module | None, chip: Chip) -> tuple[TopInstruction, ...]:
    most_expensive = sorted(costs, key=lambda c: -c.seconds)[:TOP]
    return tuple(
        TopInstruction(
            c.instruction.name,
            c.part,
            _source(module, c),
            c.times,
            c.seconds,
            _share(c.flops, c.seconds, chip),
            c.instruction.type[:70],
        )
        for c in most_expensive
    )


def _source(module: Module, c: Cost) -> str:
    """File, function and end of the op_name: "llm.py:Mlp.__call__ BSD,DF->BSF/dot_general (backward)"."""
    frames, name = module.source(c.instruction), module.op_name(c.instruction)
    here = next((f for f in frames if not any(shared in f for shared in _SHARED_FILES)), *frames[:1] or ("",))
    direction = "rematerialized" if "rematted" in name else "backward" if "transpose(" in name else "forward"
    return f"{here.rsplit('/', 1)[-1]} {'/'.join(name.split('/')[-2:])} ({direction})"


def _warnings(compiled: Compiled, schedule: Schedule | None) -> tuple[str, ...]:
    found = list(compiled.messages)
    if schedule is None:
        return tuple(found)
    found += [f"{text}: counted once, so that the step may take longer than reported" for text in schedule.unknown]
    for c in schedule.costs:
        if c.collective is not None and c.collective.kind != "reduce-scatter" and c.collective.bytes > LARGE_GATHER:
            found.append(
                f"{c.collective.kind} of {c.collective.bytes / GIB:.2f} GiB over {axes_label(c.collective.axes)}, "
                f"{c.times} times: {c.instruction.name} ({c.instruction.op_name or c.instruction.type[:60]})"
            )
    recomputed = [c for c in schedule.costs if ".remat" in c.instruction.name]
    if recomputed:
        seconds = sum(c.seconds for c in recomputed)
        found.append(f"the compiler rematerializes {len(recomputed)} values to save memory: {seconds:.3f} s")
    if schedule.guessed > 0.02 * schedule.seconds:
        found.append(f"{schedule.guessed:.3f} s are of instructions without an estimate: bytes / HBM rate")
    return tuple(found)


def to_json(report: Report) -> str:
    """The whole report as JSON."""
    return json.dumps(dataclasses.asdict(report), indent=1)
