"""The time of a compiled step: every instruction of one chip's schedule, times the number of its runs.

A chip runs its instructions one after another. A transfer that was started overlaps with them until its `-done`. A
layer that gathers the next layer's weights while its matmul runs:

    time      0         4        7
    compute   |--matmul-|        |---
    ici       |------gather------|
              start     .        done      exposed: 3 of 7, for which the chip waits

The time of
  * a fusion or other operation with an estimate: the compiler's `estimated_cycles` / clock,
  * a loop: trip count x (body + condition); a conditional: its most expensive branch,
  * a collective: its links' time (collectives.py); a synchronous one is exposed in full,
  * a copy to VMEM (copy-start): bytes / HBM rate, overlapped,
  * an instruction without an estimate: bytes / HBM rate,
  * a Pallas kernel: `kernel_seconds`, since the compiler has no estimate.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

from molmo2_jax.aot import collectives, model_parts
from molmo2_jax.aot.chips import Chip
from molmo2_jax.aot.collectives import Collective, DeviceLayout
from molmo2_jax.aot.flop_count import product_flops
from molmo2_jax.aot.hlo import Instruction, Module, size, trip_count

# Instructions without work: aliases, containers, constants.
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "iota", "domain", "add-dependency", "send-done", "recv-done"),
}
_SMALL = 1 << 16  # bytes; without an estimate, less than this counts as free: scalars and index vectors


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of all runs of one instruction. `seconds`: the chip computes or waits; `hidden`: overlapped transfer."""

    instruction: Instruction
    part: str
    times: int
    seconds: float
    hidden: float
    flops: float
    collective: Collective | None


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Costs of a whole step, and what is uncertain about them."""

    costs: tuple[Cost, ...]
    unknown: tuple[str, ...]  # loops without a trip count, counted once; ends without a start
    guessed: float  # seconds of instructions without an estimate

    @property
    def seconds(self) -> float:
        return sum(c.seconds for c in self.costs)

    @property
    def exposed(self) -> float:
        """Seconds for which the chip waits for collectives."""
        return sum(c.seconds for c in self.costs if c.collective is not None)


@dataclasses.dataclass(frozen=True)
class _Line:
    """One run of an instruction: time of the chip, overlapped time, and the computations that it calls, with counts."""

    instruction: Instruction
    seconds: float = 0.0
    hidden: float = 0.0
    flops: float = 0.0
    collective: Collective | None = None
    calls: tuple[tuple[str, int], ...] = ()
    guessed: bool = False


def _starts_transfer(i: Instruction) -> bool:
    """Whether `i` starts a transfer: by its opcode, or as a fusion of that name (v5e)."""
    return i.opcode.endswith("-start") or (i.opcode == "fusion" and i.name.startswith("async-collective-start"))


def _is_fused_end(i: Instruction) -> bool:
    return i.opcode == "fusion" and i.name.startswith("async-collective-done")


class Timer:
    """Computes the schedule of a module on one chip.

    Args:
      trips: (loop, its named scope) -> iterations of a loop whose limit the program computes; None if unknown.
      kernel_seconds: Pallas call -> (seconds, FLOPs) of one call.
    """

    def __init__(
        self,
        module: Module,
        chip: Chip,
        layout: DeviceLayout,
        trips: Callable[[Instruction, str | None], int | None],
        kernel_seconds: Callable[[Instruction], tuple[float, float]],
    ):
        self._module, self._chip, self._layout = module, chip, layout
        self._trips, self._kernel = trips, kernel_seconds
        self._unknown: dict[str, str] = {}
        self._line_seconds = functools.cache(lambda name: sum(self._total(line) for line in self._lines(name)))
        self._lines = functools.cache(self._time_lines)

    def schedule(self) -> Schedule:
        """Costs of everything that the entry computation runs."""
        costs, guessed = [], 0.0
        for line, times in self._unroll(self._module.entry, 1):
            guessed += line.seconds * times if line.guessed else 0.0
            if line.seconds or line.hidden or line.flops or line.collective:
                part = model_parts.part(self._module, line.instruction, line.collective is not None)
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

    def _unroll(self, computation: str, times: int) -> Iterator[tuple[_Line, int]]:
        for line in self._lines(computation):
            yield line, times
            for called, count in line.calls:
                yield from self._unroll(called, times * count)

    def _total(self, line: _Line) -> float:
        return line.seconds + sum(self._line_seconds(name) * count for name, count in line.calls)

    def _time_lines(self, computation: str) -> tuple[_Line, ...]:
        """The lines of a computation on one clock, with the waits for transfers."""
        now, busy_until, lines = 0.0, collections.defaultdict(float), []
        in_flight: dict[str, tuple[_Line, float]] = {}  # name that its end refers to -> (transfer, end time)

        def start(name: str, line: _Line, channel: str) -> None:
            busy_until[channel] = max(now, busy_until[channel]) + line.hidden
            in_flight[name] = line, busy_until[channel]

        for i in self._module.computations[computation]:
            if crossing := collectives.between_slices(self._module, i, self._layout, self._chip):
                if i.opcode == "send":
                    start(crossing[0], _Line(i, hidden=crossing[1].seconds, collective=crossing[1]), "dcn")
                continue
            if _starts_transfer(i):
                start(i.name, *self._started_transfer(i))
                continue
            if (name := self._ended_transfer(i, in_flight)) is not None:
                line, done = in_flight.pop(name)
                wait = max(0.0, done - now)
                line = dataclasses.replace(line, seconds=wait, hidden=max(0.0, line.hidden - wait))
            else:
                line = self._synchronous(i)
                if line.collective is not None:  # a started transfer may still use the links
                    line = dataclasses.replace(line, seconds=line.seconds + max(0.0, busy_until["ici"] - now))
            now += self._total(line)
            lines.append(line)
        return tuple(lines)

    def _ended_transfer(self, i: Instruction, in_flight: dict) -> str | None:
        """The name of the transfer that `i` ends; None if it ends none."""
        if i.opcode == "recv-done":
            begun = self._module.instruction(i.operands[0])
            crossing = collectives.between_slices(self._module, begun, self._layout, self._chip)
            return None if crossing is None or crossing[0] not in in_flight else crossing[0]
        if not (i.opcode.endswith("-done") or _is_fused_end(i)) or i.opcode == "send-done":
            return None
        found = next((name for name in (*i.operands, i.name.replace("-done", "-start")) if name in in_flight), None)
        if found is None:
            self._unknown[i.name] = f"unknown start of {i.name}"
        return found

    def _started_transfer(self, i: Instruction) -> tuple[_Line, str]:
        """A transfer and its channel. All its time is `hidden` until its end is reached."""
        if collectives.find(self._module, i) is not None:
            c = collectives.measure(self._module, i, self._layout, self._chip)
            return _Line(i, hidden=c.seconds, collective=c), "ici"
        moved = size(self._module.instruction(i.operands[0]).type) if i.operands else 0
        if i.opcode in ("call-start", "async-start"):  # work on the SparseCores, by its bytes
            moved = sum(size(self._module.instruction(name).type) for name in i.operands)
        return _Line(i, hidden=moved / self._chip.hbm_rate, guessed=True), i.opcode

    def _synchronous(self, i: Instruction) -> _Line:
        if i.opcode in _FREE:
            return _Line(i)
        if i.opcode == "while":
            count = trip_count(self._module, i)
            if count is None:
                count = self._trips(i, model_parts.scope(self._module, i))
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
            c = collectives.measure(self._module, i, self._layout, self._chip)
            return _Line(i, seconds=c.seconds, collective=c)
        if i.opcode == "custom-call":
            return self._custom_call(i)
        flops = product_flops(self._module, i)
        if i.cycles is not None:
            return _Line(i, seconds=i.cycles / self._chip.clock, flops=flops)
        moved = self._touched_bytes(i)
        return _Line(i, seconds=0.0 if moved < _SMALL else moved / self._chip.hbm_rate, flops=flops, guessed=True)

    def _custom_call(self, i: Instruction) -> _Line:
        if 'custom_call_target="tpu_custom_call"' not in i.rest:
            return _Line(i)  # allocations and assertions
        seconds, flops = self._kernel(i)
        return _Line(i, seconds=seconds, flops=flops)

    def _touched_bytes(self, i: Instruction) -> float:
        """Bytes read and written: of an update in place only the update, of a sort log2(n) times its operands."""
        operands = [size(self._module.instruction(name).type) for name in i.operands]
        if i.opcode == "dynamic-update-slice":
            return 2 * operands[1]
        if i.opcode == "sort":
            return size(i.type) * math.log2(max(size(i.type), 2))
        return size(i.type) + sum(operands)
