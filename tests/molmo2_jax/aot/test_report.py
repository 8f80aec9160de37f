"""The arithmetic of reports, with schedules made by hand, and their text."""

import dataclasses
import json

import pytest

from molmo2_jax.aot import report, report_table
from molmo2_jax.aot.chips import GIB
from molmo2_jax.aot.collectives import Collective
from molmo2_jax.aot.program import Compiled, Memory
from molmo2_jax.aot.schedule import Cost, Schedule
from tests.molmo2_jax.aot import programs
from tests.molmo2_jax.aot.examples import example_report, example_run, workload
from tests.molmo2_jax.aot.programs import V5E, V5P

TEXT = """%x = f32[8] parameter(0)
%f = f32[8] add(%x, %x), metadata={op_name="jit(step)/transpose(jvp())/while/body/BSD,DF->BSF/dot_general"}
%g = f32[16] all-gather(%x), dimensions={0}
ROOT %r.remat = f32[8] add(%x, %x)"""


MEMORY = Memory(GIB, 2 * GIB, GIB, GIB, 0)


def make(costs=(), unknown=(), memory=MEMORY, messages=(), too_big="", chip=V5P):
    compiled = Compiled("text", memory, 91.0, 5 * GIB, messages, too_big)
    schedule = None if too_big else Schedule(tuple(costs), tuple(unknown), guessed=0.0)
    m = programs.module(TEXT)
    return report.make(example_run(), compiled, chip, workload(), schedule, m, "v5p:2x2x1", {"jax": "0.10.2"})


def cost(name="f", part="LLM matmuls", times=1, seconds=0.0, hidden=0.0, flops=0.0, collective=None):
    m = programs.module(TEXT)
    return Cost(m.instruction(name), part, times, seconds, hidden, flops, collective)


def gather(size=1000, seconds=0.0, hidden=0.0, times=1):
    c = Collective("all-gather", ("data", "fsdp"), size, seconds + hidden)
    return cost("g", "collectives", times, seconds, hidden, collective=c)


def test_mfu_is_model_flops_over_time_and_all_chips():
    r = make([cost(seconds=1.5, flops=3e14), gather(seconds=0.5)])
    assert (r.step_seconds, r.compute_seconds, r.exposed_seconds) == (2.0, 1.5, 0.5)
    assert r.mfu == pytest.approx(sum(workload().flops.values()) / (2.0 * 4 * 459e12))
    assert r.tokens_per_second == workload().tokens / 2.0
    assert r.executed_flops == 3e14


def test_parts_are_ordered_by_time_with_their_share_of_the_peak():
    r = make([cost(seconds=1.0, flops=2.295e14), cost(part="ViT", seconds=3.0), cost(seconds=1.0, flops=2.295e14)])
    assert [p.name for p in r.parts] == ["ViT", "LLM matmuls"]
    assert r.parts[1].seconds == 2.0 and r.parts[1].mxu == pytest.approx(0.5)


def test_collectives_are_added_up_by_kind_and_axes():
    r = make([gather(seconds=0.1, hidden=0.3, times=4), gather(size=500, seconds=0.2)])
    (moved,) = r.collectives
    assert (moved.kind, moved.axes, moved.count, moved.bytes) == ("all-gather", "data x fsdp", 5, 4500)
    assert moved.seconds == pytest.approx(0.6) and moved.exposed == pytest.approx(0.3)


def test_donated_memory_counts_once():
    r = make(memory=Memory(arguments=10, temporaries=20, output=9, alias=8, code=1))
    assert r.memory["peak"] == 32 and r.fits


@pytest.mark.parametrize(("gib", "fits"), [(15.7, True), (15.8, False)])
def test_more_than_the_chip_s_memory_does_not_fit(gib, fits):
    r = make(memory=Memory(0, int(gib * GIB), 0, 0, 0), chip=V5E)
    assert r.fits == fits
    assert r.verdict == f"{'fits' if fits else 'DOES NOT FIT'}: {gib:.2f} GiB peak of 15.75 GiB on v5e"


def test_a_program_that_the_compiler_cannot_place_does_not_fit():
    r = make(
        memory=None, too_big="RESOURCE_EXHAUSTED: XLA\nRan out of memory in memory space hbm. Used 20G of 15.75G hbm.\n"
    )
    assert not r.fits and r.memory == {} and r.step_seconds == r.mfu == 0.0
    assert r.verdict == "DOES NOT FIT: Ran out of memory in memory space hbm. Used 20G of 15.75G hbm."
    assert r.verdict in report_table.text(r)


def test_warnings_name_unwanted_work():
    r = make(
        [gather(size=2 * GIB, times=3, seconds=1.0), cost("r.remat", seconds=0.25)],
        unknown=("unknown trip count of while.3 (loss.py:f)",),
        messages=("[SPMD] Involuntary full rematerialization of %x",),
    )
    assert r.warnings == (
        "[SPMD] Involuntary full rematerialization of %x",
        "unknown trip count of while.3 (loss.py:f): counted once, so that the step may take longer than reported",
        "all-gather of 2.00 GiB over data x fsdp, 3 times: g (f32[16])",
        "the compiler rematerializes 1 values to save memory: 0.250 s",
    )


def test_the_most_expensive_instructions_have_their_source():
    r = make([cost(seconds=0.5), gather(seconds=0.75)])
    assert [t.name for t in r.top] == ["g", "f"]
    assert r.top[1].source == " BSD,DF->BSF/dot_general (backward)"


def test_the_report_is_json():
    r = example_report()
    assert json.loads(report.to_json(r)) == json.loads(json.dumps(dataclasses.asdict(r)))


def test_text_and_markdown_have_the_same_content():
    r = make([cost(seconds=1.5, flops=3e14), gather(seconds=0.5)], unknown=("unknown trip count of w",))
    text, markdown = report_table.text(r), report_table.markdown(r)
    for words in (
        "fits: 3.00 GiB",
        "2.000 s, of which 0.500 s (25.0%) exposed collectives",
        "v5p:2x2x1, 4 chips",
        "unknown trip count of w",
    ):
        assert words in text and words in markdown
    assert "| all-gather | data x fsdp | 1 | 0.00 | 0.5000 | 0.5000 |" in markdown
