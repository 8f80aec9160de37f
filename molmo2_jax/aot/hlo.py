"""Parses the text of a compiled program: computations, instructions, shapes, trip counts, op names, stack frames.

A scheduled module is a list of computations, each a list of instructions in the order in which a chip runs them:

    %body (p: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
      %p = (s32[], bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
      ROOT %fusion.1 = bf16[8,128]{1,0} fusion(%a, %b), calls=%inner, backend_config={…"estimated_cycles":"42"…}
    }

becomes Instruction("fusion.1", "bf16[8,128]{1,0}", "fusion", ("a", "b"), "calls=%inner, …"). Chips and seconds are
for schedule.py.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator

_BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16}
_BITS |= {"s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64, "f8e4m3fn": 8, "f8e5m2": 8}

_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")


class HloError(ValueError):
    """A text that is not a scheduled HLO module, or a program that the analysis does not support."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation. `type` and `rest` (its attributes) are the text of the line."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    root: bool = False

    @property
    def cycles(self) -> int | None:
        """The compiler's `estimated_cycles`; None if there are none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.rest)
        return None if found is None else int(found[1])

    @property
    def op_name(self) -> str:
        """Path of jax transformations and named scopes, "jit(step)/jvp(llm)/while/body/dot_general", or ""."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return "" if found is None else found[1]

    @property
    def frame(self) -> int | None:
        """Key of its stack frame in `Module.frames`."""
        found = re.search(r"stack_frame_id=(\d+)", self.rest)
        return None if found is None else int(found[1])

    @property
    def called(self) -> tuple[str, ...]:
        """Computations it calls: a fusion's, an async wrapper's, a loop's body and condition."""
        return tuple(_CALLED.findall(self.rest))

    @property
    def branches(self) -> tuple[str, ...]:
        """Computations of a conditional, of which one runs."""
        found = [names or one for names, one in _BRANCHES.findall(self.rest)]
        return tuple(name.strip().lstrip("%") for names in found for name in names.split(","))

    def attribute(self, name: str) -> str | None:
        """The text of `name=…` up to the next comma outside brackets; None without such an attribute."""
        start = re.search(rf"(?:^|, ){name}=", self.rest)
        if start is None:
            return None
        text = self.rest[start.end() :]
        return text[: _until_comma(text)]


@dataclasses.dataclass(frozen=True)
class Module:
    """A whole program. `frames`: {key: functions from the innermost to the outermost, "path/file.py:function"}."""

    computations: dict[str, tuple[Instruction, ...]]
    entry: str
    frames: dict[int, tuple[str, ...]]

    @functools.cached_property
    def _by_name(self) -> dict[str, Instruction]:
        return {i.name: i for instructions in self.computations.values() for i in instructions}

    def instruction(self, name: str) -> Instruction:
        """The instruction called `name`; names are unique in a module."""
        return self._by_name[name]

    def inside(self, computation: str) -> Iterator[Instruction]:
        """Instructions of a computation and of those it calls; a loop's body once."""
        for i in self.computations[computation]:
            yield i
            for called in (*i.called, *i.branches):
                yield from self.inside(called)

    def op_name(self, i: Instruction) -> str:
        """The op_name of an instruction, or if it has none, of the first that it fuses, starting at the root."""
        return next((x.op_name for x in self.with_fused(i) if x.op_name), "")

    def source(self, i: Instruction) -> tuple[str, ...]:
        """The stack frames of an instruction, or if it has none, of the first that it fuses, starting at the root."""
        return next((self.frames[x.frame] for x in self.with_fused(i) if x.frame is not None), ())

    def with_fused(self, i: Instruction) -> Iterator[Instruction]:
        """The instruction, and if it is a fusion, what it fuses, starting at the root."""
        yield i
        for name in i.called if i.opcode == "fusion" else ():
            yield from reversed(self.computations[name])

    def neighbours(self, i: Instruction) -> Iterator[Instruction]:
        """Direct and indirect users of `i`, nearest first; then its operands, likewise; then the same of its caller."""
        while i is not None:
            yield from _breadth_first(i, lambda x: self._users.get(x.name, ()))
            yield from _breadth_first(
                i, lambda x: [self._by_name[name] for name in x.operands if name in self._by_name]
            )
            i = self._caller.get(self._computation[i.name])
            if i is not None:
                yield i

    @functools.cached_property
    def _users(self) -> dict[str, list[Instruction]]:
        users = collections.defaultdict(list)
        for i in self._by_name.values():
            for operand in i.operands:
                users[operand].append(i)
        return users

    @functools.cached_property
    def _computation(self) -> dict[str, str]:
        return {i.name: name for name, instructions in self.computations.items() for i in instructions}

    @functools.cached_property
    def _caller(self) -> dict[str, Instruction]:
        return {called: i for i in self._by_name.values() for called in (*i.called, *i.branches)}


def _breadth_first(
    start: Instruction, next_to: Callable[[Instruction], Iterable[Instruction]]
) -> Iterator[Instruction]:
    """All instructions that can be reached from `start`, without `start`, the nearest first."""
    queue, seen = collections.deque([start]), {start.name}
    while queue:
        for i in next_to(queue.popleft()):
            if i.name not in seen:
                seen.add(i.name)
                queue.append(i)
                yield i


def arrays(type_text: str) -> list[tuple[str, tuple[int, ...]]]:
    """(element type, dimensions) of every array of a type, tuples flattened: "(s32[], bf16[8,128])"."""
    return [(t, tuple(int(n) for n in dims.split(",") if n)) for t, dims in _ARRAY.findall(type_text) if t in _BITS]


def size(type_text: str) -> int:
    """Bytes of all arrays of a type, without padding to tiles."""
    return sum(_BITS[t] * math.prod(dims) // 8 for t, dims in arrays(type_text))


def parse(text: str) -> Module:
    """A module from `compiled.as_text()`.

    Raises:
      HloError: the text is not a scheduled HLO module.
    """
    if not text.startswith("HloModule") or "is_scheduled=true" not in text[: text.find("\n")]:
        raise HloError(f"not a scheduled HLO module: the text begins with {text[:60]!r}")
    computations, entry, current = {}, None, None
    for line in text.splitlines():
        if line.startswith("  ") and current is not None:
            current.append(_parse_instruction(line))
        elif head := _HEAD.match(line):
            current = []
            computations[head[2]] = current
            entry = head[2] if head[1] else entry
        elif line == "}":
            current = None
    if entry is None:
        raise HloError("not a scheduled HLO module: there is no ENTRY computation")
    return Module({name: tuple(body) for name, body in computations.items()}, entry, _parse_frames(text))


def _parse_instruction(line: str) -> Instruction:
    """'  ROOT %a = f32[8]{0} add(%b, %c), metadata={…}' -> Instruction."""
    name, _, value = line.strip().partition(" = ")
    end = _closing_bracket(value) if value.startswith("(") else value.index(" ")
    opcode, _, tail = value[end:].lstrip().partition("(")
    stop = _closing_bracket("(" + tail) - 2  # the bracket that ends the operands
    operands = tuple(re.findall(r"%([\w.\-]+)", tail[:stop]))
    rest = tail[stop + 1 :].removeprefix(", ")
    if opcode == "constant":
        rest = f"value={tail[:stop]}, {rest}"
    return Instruction(
        name.removeprefix("ROOT ").lstrip("%"), value[:end], opcode, operands, rest, name.startswith("ROOT ")
    )


def _closing_bracket(text: str) -> int:
    """Index after the bracket that closes the first one of `text`."""
    depth = 0
    for n, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return n + 1
    raise HloError(f"unbalanced brackets: {text[:80]}")


def _until_comma(text: str) -> int:
    """Index of the first comma outside brackets, or of the bracket that closes more than `text` opens."""
    depth = 0
    for n, c in enumerate(text):
        depth += (c in "({[") - (c in ")}]")
        if depth < 0 or (depth == 0 and c == ","):
            return n
    return len(text)


def _parse_frames(text: str) -> dict[int, tuple[str, ...]]:
    """The tables at the head of a module: files, functions, locations, and frames with their parents."""

    def table(title: str) -> dict[int, str]:
        found = re.search(rf"^{title}\n((?:\d+ .*\n)*)", text, re.MULTILINE)
        lines = () if found is None else found[1].splitlines()
        return {int(key): value for key, value in (line.split(" ", 1) for line in lines)}

    def numbers(value: str) -> dict[str, int]:
        return {key: int(n) for key, n in re.findall(r"(\w+)=(\d+)", value)}

    files, functions = ({k: v.strip('"') for k, v in table(t).items()} for t in ("FileNames", "FunctionNames"))
    locations = {key: numbers(value) for key, value in table("FileLocations").items()}
    stack = {key: numbers(value) for key, value in table("StackFrames").items()}

    @functools.cache
    def chain(key: int) -> tuple[str, ...]:
        location = locations[stack[key]["file_location_id"]]
        name = f"{files[location['file_name_id']]}:{functions[location['function_name_id']]}"
        parent = stack[key]["parent_frame_id"] - 1  # one too large in the text: 1 is "no parent"
        return (name,) if parent == 0 else (name, *chain(parent))

    return {key: chain(key) for key in sorted(stack)}


def trip_count(module: Module, loop: Instruction) -> int | None:
    """Iterations of a `while`: the compiler's known_trip_count, or the constant that its counter is compared with.

    The counters of jax's loops start at 0 and increase by 1. None if the program computes the limit.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)[1]
    body = {i.name: i for i in module.inside(condition)}
    limits = [
        body[operand]
        for i in body.values()
        if i.opcode == "compare" and i.attribute("direction") in ("LT", "GT")
        for operand in i.operands
        if operand in body
    ]
    values = [int(x.attribute("value")) for x in limits if x.opcode == "constant"]
    return values[0] if len(values) == 1 else None
