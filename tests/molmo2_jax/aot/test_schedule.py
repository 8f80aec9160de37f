"""Times of schedules: by hand, and of the two saved programs."""

import dataclasses

import pytest

from molmo2_jax.aot.schedule import Timer
from tests.molmo2_jax.aot import programs
from tests.molmo2_jax.aot.programs import V5E, V5P, cycles


def timed(m, chip=V5P, trips=lambda loop, scope: None, kernel=lambda i: (0.0, 0.0)):
    return Timer(m, chip, programs.SQUARE, trips, kernel).schedule()


FUSION = f"fusion(%x), kind=kLoop, calls=%inner, {cycles(1750)}"  # a microsecond of v5p
INNER = "%inner (a: f32[8]) -> f32[8] {\n  ROOT %t = f32[8] tanh(%a)\n}"
GROUPS = "replica_groups=[2,2]<=[4]"
MICROSECOND = 1e-6


def test_cycles_become_seconds_by_the_clock():
    s = timed(programs.module(f"%x = f32[8] parameter(0)\nROOT %f = f32[8] {FUSION}", INNER))
    assert s.seconds == pytest.approx(MICROSECOND)
    assert (s.exposed, s.unknown, s.guessed) == (0, (), 0)


def loop(trips: str, body: str) -> tuple[str, str]:
    condition = f"%cond (i: s32[]) -> pred[] {{\n  %i = s32[] parameter(0)\n  {trips}\n"
    condition += "  ROOT %lt = pred[] compare(%i, %c), direction=LT\n}"
    return condition, f"%body (p: s32[]) -> s32[] {{\n  {body}\n}}"


def test_nested_loops_multiply():
    condition, body = loop("%c = s32[] constant(3)", f"ROOT %f = f32[8] {FUSION}")
    outer_condition, outer = (
        x.replace("%cond", "%cond2").replace("%body", "%body2") for x in loop("%c = s32[] constant(5)", "")
    )
    outer = outer.replace("  \n", "  ROOT %w = s32[] while(%p), condition=%cond, body=%body\n")
    m = programs.module(
        "ROOT %w2 = s32[] while(%x), condition=%cond2, body=%body2", INNER, condition, body, outer_condition, outer
    )
    s = timed(m)
    assert s.seconds == pytest.approx(15 * MICROSECOND)
    assert [c.times for c in s.costs] == [15]


def test_a_loop_with_an_unknown_trip_count_is_named():
    parts = loop("%c = s32[] parameter(1)", f"ROOT %f = f32[8] {FUSION}")
    m = programs.module("ROOT %w = s32[] while(%x), condition=%cond, body=%body", INNER, *parts)
    s = timed(m)
    assert s.unknown == ("unknown trip count of w ()",) and s.seconds == pytest.approx(MICROSECOND)
    known = timed(m, trips=lambda loop, scope: 7)
    assert known.unknown == () and known.seconds == pytest.approx(7 * MICROSECOND)


def test_a_conditional_costs_its_most_expensive_branch():
    cheap = f"%cheap (a: f32[8]) -> f32[8] {{\n  ROOT %b = f32[8] {FUSION}\n}}"
    expensive = f"%expensive (a: f32[8]) -> f32[8] {{\n  %c = f32[8] {FUSION}\n  ROOT %d = f32[8] {FUSION}\n}}"
    m = programs.module(
        "ROOT %o = f32[8] conditional(%p, %x, %x), branch_computations={%cheap, %expensive}", INNER, cheap, expensive
    )
    assert timed(m).seconds == pytest.approx(2 * MICROSECOND)


# 2.25 MB gathered by two neighbours of a v5p: half of it crosses their link of 90 GB/s in 12.5 microseconds.
GATHER = f"%x = f32[281250] parameter(0)\n{{}} = f32[562500] {{}}(%x), dimensions={{{{0}}}}, {GROUPS}"


def test_a_synchronous_collective_is_exposed_in_full():
    m = programs.module(GATHER.format("%g", "all-gather") + f"\nROOT %f = f32[8] {FUSION}", INNER)
    s = timed(m)
    assert s.exposed == pytest.approx(12.5 * MICROSECOND) and s.seconds == pytest.approx(13.5 * MICROSECOND)


@pytest.mark.parametrize("work", [0, 4, 12, 13, 20])
def test_work_between_start_and_done_hides_a_collective(work):
    start = f"%s = (f32[281250], f32[562500]) all-gather-start(%x), dimensions={{0}}, {GROUPS}"
    lines = [
        "%x = f32[281250] parameter(0)",
        start,
        *(f"%f{n} = f32[8] {FUSION}" for n in range(work)),
        "ROOT %d = f32[562500] all-gather-done(%s)",
    ]
    s = timed(programs.module("\n".join(lines), INNER))
    assert s.exposed == pytest.approx(max(0, 12.5 - work) * MICROSECOND)
    assert s.seconds == pytest.approx(max(12.5, work) * MICROSECOND)
    (collective,) = (c for c in s.costs if c.collective is not None)
    assert collective.seconds + collective.hidden == pytest.approx(12.5 * MICROSECOND)


def test_a_second_transfer_waits_for_the_links():
    line = "%s{} = (f32[281250], f32[562500]) all-gather-start(%x), dimensions={{0}}, " + GROUPS
    done = "%d{0} = f32[562500] all-gather-done(%s{0})"
    lines = ["%x = f32[281250] parameter(0)", line.format(1), line.format(2), done.format(1), done.format(2)]
    assert timed(programs.module("\n".join(lines))).exposed == pytest.approx(25 * MICROSECOND)


@pytest.mark.parametrize("work", [0, 100])
def test_collectives_between_slices_take_the_network(work):
    attributes = (
        'frontend_attributes={_xla_host_transfer_rendezvous="psum_0",_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    lines = ["%x = f32[312500] parameter(0)", f"%s = (f32[312500], u32[]) send(%x, %t), {attributes}"]
    lines += [f"%r = (f32[312500], u32[]) recv(%t), {attributes}", *(f"%f{n} = f32[8] {FUSION}" for n in range(work))]
    lines += ["%sd = token[] send-done(%s)", "ROOT %rd = (f32[312500], u32[]) recv-done(%r)"]
    layout = dataclasses.replace(programs.SQUARE, slices=2)
    s = Timer(programs.module("\n".join(lines), INNER), V5P, layout, None, None).schedule()
    (crossing,) = (c for c in s.costs if c.collective is not None)
    assert (crossing.collective.kind, crossing.collective.axes) == ("all-reduce over DCN", ("data",))
    assert s.exposed == pytest.approx((200 - work) * MICROSECOND)  # 1.25 MB at 6.25 GB/s
    assert crossing.seconds + crossing.hidden == pytest.approx(200 * MICROSECOND)


def test_a_kernel_takes_its_given_time():
    line = 'ROOT %k = f32[8] custom-call(%x), custom_call_target="{}"'
    assert timed(programs.module(line.format("tpu_custom_call")), kernel=lambda i: (3.0, 7.0)).seconds == 3.0
    assert timed(programs.module(line.format("AllocateBuffer")), kernel=lambda i: (3.0, 7.0)).seconds == 0.0


def test_without_an_estimate_bytes_are_counted():
    big = "%x = f32[1000000] parameter(0)\nROOT %s = f32[1000000] slice(%x), slice={[0:1000000]}"
    s = timed(programs.module(big))
    assert s.seconds == s.guessed == pytest.approx(8e6 / V5P.hbm_rate)


def test_the_gathers_of_a_loop_on_v5p_are_exposed():
    s = timed(programs.saved("v5p"), trips=lambda loop, scope: 10)
    gathers = [c for c in s.costs if c.collective is not None and c.collective.kind == "all-gather"]
    assert [(c.times, c.collective.axes, c.collective.bytes) for c in gathers] == 2 * [(6, ("fsdp",), 512 * 2048 * 2)]
    once = 512 * 2048 * 2 / 2 / V5P.link
    assert sum(c.seconds for c in gathers) == pytest.approx(12 * once)
    assert sum(c.flops for c in s.costs) == 6 * 2 * 2 * 256 * 512 * 2048  # x bf16[1024, 512]
    assert s.unknown == ()


def test_the_gathers_of_a_loop_on_v5e_overlap_with_the_matmul():
    s = timed(programs.saved("v5e"), chip=V5E, trips=lambda loop, scope: 10)
    gathers = [c for c in s.costs if c.collective is not None and c.collective.kind == "all-gather"]
    assert sum(c.times for c in gathers) == 12
    once = 512 * 2048 * 2 / 2 / V5E.link
    overlapped = [c for c in gathers if "start" in c.instruction.name or c.hidden]
    assert [c.seconds for c in overlapped] == [0.0] and overlapped[0].hidden == pytest.approx(6 * once)
    assert sum(c.seconds for c in gathers) == pytest.approx(6 * once)
    assert sum(c.flops for c in s.costs) == 6 * 2 * 2 * 2048 * 512 * 2048  # x bf16[8192, 512]
