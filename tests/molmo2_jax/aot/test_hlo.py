"""Parsing compiled programs: two real ones that are saved as text, and single lines."""

import pytest

from molmo2_jax.aot import hlo
from tests.molmo2_jax.aot import programs


@pytest.mark.parametrize("chip", ["v5p", "v5e"])
def test_a_real_program_is_parsed(chip):
    m = programs.saved(chip)
    assert m.entry == "main.8_spmd" and m.computations[m.entry][-1].root
    loops = {hlo.trip_count(m, i) for i in m.computations[m.entry] if i.opcode == "while"}
    assert loops == {6, None}  # the scan over six layers; the loop whose end is an argument
    (conditional,) = (i for i in m.computations[m.entry] if i.opcode == "conditional")
    assert conditional.branches == ("region_4.5_spmd", "region_5.6_spmd")
    matmuls = [
        i for i in m.inside(m.entry) if i.cycles is not None and i.op_name.endswith("body/closed_call/dot_general")
    ]
    assert matmuls and all(i.opcode == "fusion" and i.cycles > 1000 for i in matmuls)


def test_frames_are_listed_from_the_innermost():
    m = programs.saved("v5p")
    (loop,) = (i for i in m.computations[m.entry] if i.name == "while.30")
    assert m.source(loop)[0] == "loop.py:run.<locals>.f" and m.source(loop)[-2:] == ("loop.py:run", "loop.py:<module>")
    tanh = m.instruction("tanh.12")
    assert m.source(tanh)[0] == "loop.py:run.<locals>.f.<locals>.layer"


def test_a_fusion_without_a_frame_has_that_of_what_it_fuses():
    frames = (
        'FileNames\n1 "a.py"\n\nFunctionNames\n1 "f"\n\nFileLocations\n1 {file_name_id=1 function_name_id=1 line=1}\n\n'
    )
    frames += "StackFrames\n1 {file_location_id=1 parent_frame_id=1}\n\n"
    inner = '%inner (a: f32[8]) -> f32[8] {\n  ROOT %t = f32[8]{0} tanh(%a), metadata={op_name="x" stack_frame_id=1}\n}'
    entry = "ENTRY %main (p: f32[8]) -> f32[8] {\n  ROOT %f = f32[8]{0} fusion(%p), kind=kLoop, calls=%inner\n}\n"
    m = hlo.parse(f"HloModule m, is_scheduled=true\n\n{frames}{inner}\n\n{entry}")
    assert m.source(m.instruction("f")) == ("a.py:f",)


def test_types_have_sizes():
    assert hlo.size("bf16[6,256,2048]{2,1,0:T(8,128)(2,1)}") == 6 * 256 * 2048 * 2
    assert hlo.size("(s32[]{:T(128)}, bf16[4,2]{1,0}, /*index=2*/pred[3])") == 4 + 16 + 3
    assert hlo.arrays("(f32[2,3]{1,0}, u32[]{:S(2)}, token[])") == [("f32", (2, 3)), ("u32", ())]


def test_attributes_end_at_their_comma():
    m = programs.module(
        "ROOT %d = f32[8]{0} dot(%a, %b), lhs_contracting_dims={0,1}, window={size=3 pad=1_1}, metadata={x}"
    )
    d = m.instruction("d")
    assert d.operands == ("a", "b")
    assert d.attribute("lhs_contracting_dims") == "{0,1}" and d.attribute("window") == "{size=3 pad=1_1}"
    assert d.attribute("stride") is None


@pytest.mark.parametrize(
    ("limit", "trips"), [("%c = s32[] constant(12)", 12), ("%c = s32[] get-tuple-element(%p), index=2", None)]
)
def test_the_trip_count_is_the_constant_that_the_counter_is_compared_with(limit, trips):
    condition = f"%cond (p: (s32[], s32[])) -> pred[] {{\n  %i = s32[] get-tuple-element(%p), index=0\n  {limit}\n"
    condition += "  ROOT %lt = pred[] compare(%i, %c), direction=LT\n}"
    m = programs.module("ROOT %w = (s32[]) while(%t), condition=%cond, body=%cond", condition)
    assert hlo.trip_count(m, m.instruction("w")) == trips


def test_a_known_trip_count_is_used():
    m = programs.module(
        'ROOT %w = (s32[]) while(%t), condition=%c, body=%b, backend_config={"known_trip_count":{"n":"36"},"x":1}'
    )
    assert hlo.trip_count(m, m.instruction("w")) == 36


@pytest.mark.parametrize("text", ["", "module {", "HloModule m, entry={}\n\nENTRY %main () -> f32[] {\n}\n"])
def test_a_text_without_a_schedule_is_an_error(text):
    with pytest.raises(hlo.HloError, match="not a scheduled HLO module"):
        hlo.parse(text)
