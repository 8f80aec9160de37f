"""The collectives of a compiled program: their mesh axes, their bytes, and the time that the links need for them.

    all-reduce of f32[4096] over fsdp = 4 of a mesh (data 2, fsdp 4):    groups {0,1,2,3}, {4,5,6,7}
      axes    ("fsdp",)                  device 1 differs from device 0 in its index along fsdp
      bytes   4096 x 4                   the whole buffer
      seconds 2 x 3/4 x bytes / (links x rate)

`links` is the number of links that the compiler's plan uses at a time, each in one direction: two for a ring in both
directions, six for a plan over three axes of a torus. A device of a group of n sends (n-1)/n of the buffer once for an
all-gather or a reduce-scatter, and twice for an all-reduce. Start-up latencies are not counted.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from molmo2_jax.aot.chips import Chip
from molmo2_jax.aot.hlo import Instruction, Module, size

_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")

_DCN_TRANSFER = re.compile(r'_xla_host_transfer_rendezvous="([^"]*)".*_xla_megascale_transfer_type="([^"]*)"')

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")


@dataclasses.dataclass(frozen=True)
class DeviceLayout:
    """The mesh, and the torus coordinates of its devices: `coords` int[devices, 3] in the order of the mesh."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    coords: np.ndarray
    slices: int = 1

    @property
    def torus(self) -> tuple[int, ...]:
        """Chips along each axis of the torus."""
        return tuple(int(n) for n in self.coords.max(0) + 1)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One run of a collective. `bytes` is the whole buffer: after a gather, before a scatter."""

    kind: str
    axes: tuple[str, ...]
    bytes: int
    seconds: float


def find(module: Module, i: Instruction) -> Instruction | None:
    """The collective that an instruction runs: itself, or the one inside a fusion or an asynchronous call."""
    if _collective_kind(i.opcode) is not None and not i.opcode.endswith("-done"):
        return i
    inner = (x for name in i.called for x in module.inside(name))
    return next((x for x in inner if _collective_kind(x.opcode) is not None and not x.opcode.endswith("-done")), None)


def measure(module: Module, i: Instruction, layout: DeviceLayout, chip: Chip) -> Collective:
    """Kind, axes, bytes and time of the collective that `i` runs; `find` must not give None for it."""
    inner = find(module, i)
    kind = _collective_kind(inner.opcode)
    if kind == "all-reduce" and i.opcode == "fusion" and size(i.type) < size(inner.type):
        kind = "reduce-scatter"  # a fused all-reduce and slice is one reduce-scatter
    groups = replica_groups(inner, math.prod(layout.shape))
    axes = mesh_axes(groups, layout)
    moved = _buffer_bytes(module, kind, inner)
    return Collective(kind, axes, moved, _link_seconds(kind, moved, groups, _links_in_use(inner), layout, chip))


def between_slices(module: Module, i: Instruction, layout: DeviceLayout, chip: Chip) -> tuple[str, Collective] | None:
    """(name shared with its recv, collective) of a `send` over DCN. Only `data` spans slices."""
    found = _DCN_TRANSFER.search(i.rest)
    if i.opcode not in ("send", "recv") or found is None:
        return None
    kind = found[2].lower().replace("_", "-")
    moved = size(module.instruction(i.operands[0]).type) if i.opcode == "send" else 0
    times = 2 * (layout.slices - 1) / layout.slices if kind == "all-reduce" else 1
    return found[1], Collective(f"{kind} over DCN", (layout.axes[0],), moved, times * moved / chip.dcn)


def _collective_kind(opcode: str) -> str | None:
    return next((kind for kind in KINDS if opcode.removesuffix("-start").removesuffix("-done") == kind), None)


def _buffer_bytes(module: Module, kind: str, i: Instruction) -> int:
    """Bytes of the larger side. The type of a start lists operands and results."""
    operands = sum(size(module.instruction(name).type) for name in i.operands)
    if kind in ("all-reduce", "reduce-scatter", "all-to-all", "collective-permute"):
        return operands
    return size(i.type) - operands if i.opcode.endswith("-start") else size(i.type)


def replica_groups(i: Instruction, devices: int) -> np.ndarray:
    """int[groups, members] of device numbers, from any notation:

    {{0,1},{2,3}}    [2,2]<=[4]    [2,2]<=[2,2]T(1,0)    mesh['a'=2,'b'=2] {'b'}    or the pairs of a permute
    mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}    a mesh whose devices are permuted
    """
    if pairs := i.attribute("source_target_pairs"):
        return np.array(re.findall(r"\{(\d+),(\d+)\}", pairs), int)
    if mesh := _MESH.search(i.rest):
        names, sizes = zip(*re.findall(r"'(\w+)'=(\d+)", mesh[1]), strict=True)
        over = re.findall(r"'(\w+)'", mesh[4])
        order = [n for n, name in enumerate(names) if name not in over] + [names.index(name) for name in over]
        members = math.prod(int(sizes[names.index(name)]) for name in over)
        numbers = np.arange(devices) if mesh[2] is None else _iota(mesh[2], mesh[3]).reshape(-1)
        return numbers.reshape([int(n) for n in sizes]).transpose(order).reshape(-1, members)
    text = re.search(r"replica_groups=(\[\S+|\{\{.*?\}\}|\{\})", i.rest)[1].rstrip(",")
    if tile := re.fullmatch(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        return _iota(tile[2], tile[3]).reshape([int(n) for n in tile[1].split(",")])
    groups = [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", text)]
    return np.array(groups) if groups else np.arange(devices)[None]


def _iota(shape: str, order: str | None) -> np.ndarray:
    """[2,4]T(1,0): 0, 1, 2, ... in that shape, then transposed."""
    sizes = [int(n) for n in shape.split(",")]
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    return numbers if order is None else numbers.transpose([int(n) for n in order.split(",")])


def mesh_axes(groups: np.ndarray, layout: DeviceLayout) -> tuple[str, ...]:
    """Names of the mesh axes along which members of a group differ."""
    index = np.stack(np.unravel_index(groups, layout.shape), -1)  # [groups, members, axes]
    differ = (index != index[:, :1]).any((0, 1))
    return tuple(name for name, differs in zip(layout.axes, differ, strict=True) if differs)


def _links_in_use(i: Instruction) -> int:
    """Links that the compiler's plan uses at a time; 2 (a ring in both directions) where no plan is given."""
    if rings := re.findall(r"\"ring_type\":\"ICI_RING_TYPE_(\w+?)\"", i.rest):
        colors = i.rest.count('"phase_rings"')
        return colors * (1 if rings[0].startswith("UNIDIR") else 2)
    if found := re.search(r"(\w+)\{colors:(\d+)", i.rest):
        return int(found[2]) * (1 if found[1].startswith("UniDirection") else 2)
    return 2


def _link_seconds(kind: str, moved: int, groups: np.ndarray, links: int, layout: DeviceLayout, chip: Chip) -> float:
    spans = [np.unique(layout.coords[groups[0]][:, axis]).size for axis in range(layout.coords.shape[1])]
    wide = [axis for axis, span in enumerate(spans) if span > 1]
    open_ended = any(layout.torus[axis] % chip.wraps for axis in wide)
    if kind == "collective-permute":
        return moved * _most_hops(groups, layout, chip) / chip.link
    if kind == "all-to-all":  # each of n keeps 1/n; the rest crosses a quarter (open: half) of the longest axis
        return moved * max(spans) / (4 if open_ended else 8) / chip.link
    if open_ended and len(wide) == 1:
        links = max(links // 2, 1)  # no link closes the ring: the way back uses the same links
    members = groups.shape[1]
    times = 2 if kind == "all-reduce" else 1
    return times * moved * (members - 1) / members / (links * chip.link)


def _most_hops(pairs: np.ndarray, layout: DeviceLayout, chip: Chip) -> int:
    """Links on the longest path of a pair."""
    torus = np.array(layout.torus)
    hops = np.abs(layout.coords[pairs[:, 0]] - layout.coords[pairs[:, 1]])
    hops = np.where(torus % chip.wraps == 0, np.minimum(hops, torus - hops), hops)
    return max(int(hops.sum(-1).max()), 1)


def axes_label(axes: Sequence[str]) -> str:
    """("data", "fsdp") -> "data x fsdp"; no axes -> "none"."""
    return " x ".join(axes) if axes else "none"
