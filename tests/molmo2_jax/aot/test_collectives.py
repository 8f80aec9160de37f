"""Collectives: groups in every notation, axes, bytes, links, seconds."""

import numpy as np
import pytest

from molmo2_jax.aot import collectives
from molmo2_jax.aot.collectives import DeviceLayout
from tests.molmo2_jax.aot import programs

CUBE = DeviceLayout(  # 64 chips of v5p: data 4 along x, fsdp 16 along y and z
    ("data", "fsdp"), (4, 16), np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), -1)
)
RING16 = DeviceLayout(("fsdp",), (16,), np.array([(0, n, 0) for n in range(16)]))


def one(line: str, layout: DeviceLayout, chip=programs.V5P, operand="f32[1024]"):
    m = programs.module(f"%x = {operand} parameter(0)\n{line}")
    return collectives.measure(m, m.computations[m.entry][-1], layout, chip)


@pytest.mark.parametrize(
    ("groups", "expected", "axes"),
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]], ("fsdp",)),
        ("[2,2]<=[4]", [[0, 1], [2, 3]], ("fsdp",)),
        ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]], ("data",)),
        ("mesh['a'=2,'b'=1,'c'=2] {'a'}", [[0, 2], [1, 3]], ("data",)),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", [[0, 1], [2, 3]], ("fsdp",)),
        ("mesh['a'=4,'b'=1] {'a','b'}", [[0, 1, 2, 3]], ("data", "fsdp")),
        ("{}", [[0, 1, 2, 3]], ("data", "fsdp")),
    ],
)
def test_groups_are_read_in_every_notation(groups, expected, axes):
    m = programs.module(f"ROOT %r = f32[8] all-reduce(%x), channel_id=1, replica_groups={groups}, to_apply=%add")
    found = collectives.replica_groups(m.instruction("r"), 4)
    assert found.tolist() == expected
    assert collectives.mesh_axes(found, programs.SQUARE) == axes


def test_a_gather_moves_the_whole_buffer_except_its_own_share():
    c = one("ROOT %g = f32[16384] all-gather(%x), replica_groups=[1,16]<=[16], dimensions={0}", RING16)
    assert (c.kind, c.axes, c.bytes) == ("all-gather", ("fsdp",), 65536)
    assert c.seconds == pytest.approx(65536 * 15 / 16 / (2 * 9e10))  # a ring in both directions


def test_an_all_reduce_moves_twice_that_over_the_links_of_its_plan():
    plan = 'backend_config={"debug":"UniDirectionNDRingStrategy{colors:4 phases:2 cores:{4 4}"}'
    line = f"ROOT %r = f32[1024] all-reduce(%x), replica_groups=[4,16]<=[64], to_apply=%add, {plan}"
    assert one(line, CUBE).seconds == pytest.approx(2 * 4096 * 15 / 16 / (4 * 9e10))
    both = line.replace("UniDirectionNDRing", "").replace("colors:4", "colors:2")
    assert one(both, CUBE).seconds == one(line, CUBE).seconds  # two rings in both directions


def test_the_rings_of_a_sparse_core_are_counted():
    rings = ",".join(
        '{"phase_rings":[{"ring_type":"ICI_RING_TYPE_UNIDIR_CW"},{"ring_type":"ICI_RING_TYPE_UNIDIR_CW"}]}'
        for _ in range(6)
    )
    line = f"ROOT %r = f32[64] reduce-scatter(%x), replica_groups=[4,16]<=[64], to_apply=%add, a={rings}"
    assert one(line, CUBE).seconds == pytest.approx(4096 * 15 / 16 / (6 * 9e10))


def test_a_fusion_of_all_reduce_and_slice_is_a_reduce_scatter():
    inner = "%scatter (a: f32[1024]) -> f32[64] {\n  %a = f32[1024] parameter(0)\n  %r = f32[1024] all-reduce(%a), "
    inner += "replica_groups=[1,16]<=[16], to_apply=%add\n  ROOT %s = f32[64] dynamic-slice(%r, %n)\n}"
    m = programs.module(
        "%x = f32[1024] parameter(0)\nROOT %f = f32[64] fusion(%x), kind=kCustom, calls=%scatter", inner
    )
    c = collectives.measure(m, m.instruction("f"), RING16, programs.V5P)
    assert (c.kind, c.bytes) == ("reduce-scatter", 4096)
    assert c.seconds == pytest.approx(4096 * 15 / 16 / (2 * 9e10))


def test_a_permute_takes_the_links_of_its_longest_path():
    line = "ROOT %p = f32[1024] collective-permute(%x), source_target_pairs={{PAIRS}}"
    ring = "},{".join(f"{n},{(n + 1) % 16}" for n in range(16))
    assert one(line.replace("PAIRS", ring), RING16).seconds == pytest.approx(4096 / 9e10)  # the torus closes the ring
    far = "},{".join(f"{n},{(n + 3) % 16}" for n in range(16))
    assert one(line.replace("PAIRS", far), RING16).seconds == pytest.approx(3 * 4096 / 9e10)


def test_an_open_line_has_half_the_links():
    line = "ROOT %g = f32[4096] all-gather(%x), replica_groups=[1,4]<=[4], dimensions={0}"
    layout = DeviceLayout(("fsdp",), (4,), np.array([(0, n, 0) for n in range(4)]))
    closed = one(line, layout, programs.V5P).seconds * programs.V5P.link
    assert one(line, layout, programs.V5E).seconds * programs.V5E.link == pytest.approx(2 * closed)
