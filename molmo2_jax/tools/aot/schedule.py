"""The time of a compiled step: every instruction of one chip's schedule, as often as it runs.

The chip does one thing after another; transfers that were started run beside it until their `-done` is reached. Written
for a loop of 36 that gathers the next layer's weights while a matmul runs:

    time      0         4        7                     units beside the loop's lines
    compute   |---------|        |---
    ici       |------------------|
              start     .        done      exposed: 3 of 7, what the chip waits

  * fusions and the like take the compiler's `estimated_cycles` / clock,
  * loops take body and condition by their trip counts, conditionals their dearest branch,
  * collectives what collectives.py says: synchronous ones are exposed whole,
  * copies into the chip's own memory (copy-start) their bytes by the HBM rate, beside the compute,
  * instructions without an estimate their bytes by the HBM rate,
  * Pallas kernels what `kernel_seconds` says: the compiler does not look inside.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable

from molmo2_jax.tools.aot import collectives, parts
from molmo2_jax.tools.aot.chips import Chip
from molmo2_jax.tools.aot.collectives import Collective, Place
from molmo2_jax.tools.aot.flop_count import product_flops
from molmo2_jax.tools.aot.hlo import Instruction, Module, size, trip_count

# No work of their own: views, containers, numbers the program begins with.
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "iota", "domain", "add-dependency", "send-done", "recv-done"),
}
_SMALL = 1 << 16  # bytes: scalars and index vectors between the fusions cost nothing that is seen


@dataclasses.dataclass(frozen=True)
class Cost:
    """One instruction's cost, over all its runs. `seconds` is what the chip spends or waits, `hidden` what overlaps."""

    instruction: Instruction
    part: str
    times: int
    seconds: float
    hidden: float
    flops: float
    collective: Collective | None


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Costs of a whole step, and what was not known about it."""

    costs: tuple[Cost, ...]
    unknown: tuple[str, ...]  # loops without a trip count, each counted once
    guessed: float  # seconds of instructions costed by their bytes

    @property
    def seconds(self) -> float:
        return sum(c.seconds for c in self.costs)

    @property
    def exposed(self) -> float:
        """Seconds the chip waits for collectives."""
        return sum(c.seconds for c in self.costs if c.collective is not None)


@dataclasses.dataclass(frozen=True)
class _Line:
    """An instruction run once: what the chip spends on it, what runs beside, and what it calls how often."""

    instruction: Instruction
    seconds: float = 0.0
    hidden: float = 0.0
    flops: float = 0.0
    collective: Collective | None = None
    calls: tuple[tuple[str, int], ...] = ()
    guessed: bool = False


def _starts(i: Instruction) -> bool:
    """The beginning of a transfer: by its opcode, or the fusion that stands for it (v5e)."""
    return i.opcode.endswith("-start") or (i.opcode == "fusion" and i.name.startswith("async-collective-start"))


def _ends_fusion(i: Instruction) -> bool:
    return i.opcode == "fusion" and i.name.startswith("async-collective-done")


class Timer:
    """Reads a module's schedule for one chip.

    Args:
      trips: times a loop runs whose count the program computes, by its source frames; None where it is not known.
      kernel_seconds: seconds and FLOPs of one call of a Pallas kernel.
    """

    def __init__(
        self,
        module: Module,
        chip: Chip,
        place: Place,
        trips: Callable[[Instruction, tuple[str, ...]], int | None],
        kernel_seconds: Callable[[Instruction], tuple[float, float]],
    ):
        self._module, self._chip, self._place = module, chip, place
        self._trips, self._kernel = trips, kernel_seconds
        self._unknown: dict[str, str] = {}
        self._line_seconds = functools.cache(lambda name: sum(self._total(line) for line in self._lines(name)))
        self._lines = functools.cache(self._read)

    def schedule(self) -> Schedule:
        """Costs of everything the entry computation runs."""
        costs, guessed = [], 0.0
        for line, times in self._unroll(self._module.entry, 1):
            guessed += line.seconds * times if line.guessed else 0.0
            if line.seconds or line.hidden or line.flops or line.collective:
                part = parts.part(self._module, line.instruction, line.collective is not None)
                costs.append(
                    Cost(
                        line.instruction,
                        part,
                        times,
                        line.seconds * times,
                        line.hidden * times,
                        line.flops * times,
                        line.collective,
                    )
                )
        return Schedule(tuple(costs), tuple(sorted(set(self._unknown.values()))), guessed)

    def _unroll(self, computation: str, times: int):
        for line in self._lines(computation):
            yield line, times
            for called, count in line.calls:
                yield from self._unroll(called, times * count)

    def _total(self, line: _Line) -> float:
        return line.seconds + sum(self._line_seconds(name) * count for name, count in line.calls)

    def _read(self, computation: str) -> tuple[_Line, ...]:
        """The lines of a computation on one clock, with what waits for what."""
        now, busy_until, lines = 0.0, collections.defaultdict(float), []
        under_way: dict[str, tuple[_Line, float]] = {}  # by the name its end knows: the transfer, and when it is done

        def begin(name: str, line: _Line, channel: str) -> None:
            busy_until[channel] = max(now, busy_until[channel]) + line.hidden
            under_way[name] = line, busy_until[channel]

        for i in self._module.computations[computation]:
            if crossing := collectives.between_slices(self._module, i, self._place, self._chip):
                if i.opcode == "send":
                    begin(crossing[0], _Line(i, hidden=crossing[1].seconds, collective=crossing[1]), "dcn")
                continue
            if _starts(i):
                begin(i.name, *self._started(i))
                continue
            if (name := self._ended(i, under_way)) is not None:
                line, done = under_way.pop(name)
                wait = max(0.0, done - now)
                line = dataclasses.replace(line, seconds=wait, hidden=max(0.0, line.hidden - wait))
            else:
                line = self._synchronous(i)
                if line.collective is not None:  # the links may still be busy with one that was started
                    line = dataclasses.replace(line, seconds=line.seconds + max(0.0, busy_until["ici"] - now))
            now += self._total(line)
            lines.append(line)
        return tuple(lines)

    def _ended(self, i: Instruction, under_way: dict) -> str | None:
        """The name of the transfer whose end `i` is; None where it is no end."""
        if i.opcode == "recv-done":
            start = self._module.instruction(i.operands[0])
            crossing = collectives.between_slices(self._module, start, self._place, self._chip)
            return None if crossing is None or crossing[0] not in under_way else crossing[0]
        if not (i.opcode.endswith("-done") or _ends_fusion(i)) or i.opcode == "send-done":
            return None
        found = next((name for name in (*i.operands, i.name.replace("-done", "-start")) if name in under_way), None)
        if found is None:
            self._unknown[i.name] = f"unknown beginning of {i.name}"
        return found

    def _started(self, i: Instruction) -> tuple[_Line, str]:
        """A transfer and the channel it needs; its whole time stands in `hidden` until its end is met."""
        if collectives.find(self._module, i) is not None:
            c = collectives.measure(self._module, i, self._place, self._chip)
            return _Line(i, hidden=c.seconds, collective=c), "ici"
        moved = size(self._module.instruction(i.operands[0]).type) if i.operands else 0
        if i.opcode in ("call-start", "async-start"):  # work on the SparseCores, by the bytes it touches
            moved = sum(size(self._module.instruction(name).type) for name in i.operands)
        return _Line(i, hidden=moved / self._chip.hbm_rate, guessed=True), i.opcode

    def _synchronous(self, i: Instruction) -> _Line:
        if i.opcode in _FREE:
            return _Line(i)
        if i.opcode == "while":
            count = trip_count(self._module, i)
            if count is None:
                count = self._trips(i, self._module.source(i))
            if count is None:
                source = self._module.source(i)
                self._unknown[i.name] = f"unknown trip count of {i.name} ({source[0] if source else i.op_name})"
                count = 1
            return _Line(i, calls=tuple((name, count) for name in i.called))
        if i.opcode == "conditional":
            return _Line(i, calls=((max(i.branches, key=self._line_seconds), 1),))
        if i.opcode == "call":
            return _Line(i, calls=tuple((name, 1) for name in i.called))
        if collectives.find(self._module, i) is not None and i.cycles is None:
            c = collectives.measure(self._module, i, self._place, self._chip)
            return _Line(i, seconds=c.seconds, collective=c)
        if i.opcode == "custom-call":
            return self._custom_call(i)
        flops = product_flops(self._module, i)
        if i.cycles is not None:
            return _Line(i, seconds=i.cycles / self._chip.clock, flops=flops)
        moved = self._touched(i)
        return _Line(i, seconds=0.0 if moved < _SMALL else moved / self._chip.hbm_rate, flops=flops, guessed=True)

    def _custom_call(self, i: Instruction) -> _Line:
        if 'custom_call_target="tpu_custom_call"' not in i.rest:
            return _Line(i)  # allocations and assertions
        seconds, flops = self._kernel(i)
        return _Line(i, seconds=seconds, flops=flops)

    def _touched(self, i: Instruction) -> float:
        """Bytes read and written; an update in place touches what it writes, a sort its operands log2(n) times."""
        operands = [size(self._module.instruction(name).type) for name in i.operands]
        if i.opcode == "dynamic-update-slice":
            return 2 * operands[1]
        if i.opcode == "sort":
            return size(i.type) * math.log2(max(size(i.type), 2))
        return size(i.type) + sum(operands)
