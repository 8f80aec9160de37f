"""Parts are told by source frames, and copies by what they are."""

import pytest

from molmo2_jax.tools.aot import hlo, parts

INNER = """%matmul (a: f32[8,8]) -> f32[8,8] {
  ROOT %c = f32[8,8] convolution(%a, %a), dim_labels=bf_io->bf
}

%add (a: f32[8,8]) -> f32[8,8] {
  ROOT %s = f32[8,8] add(%a, %a)
}"""


def part(frame: str, line: str, collective: bool = False) -> str:
    path, _, function = frame.partition(":")
    head = f'FileNames\n1 "x/{path}"\n2 "x/models/layers.py"\n\nFunctionNames\n1 "{function}"\n2 "run_stack"\n\n'
    head += "FileLocations\n1 {file_name_id=1 function_name_id=1}\n2 {file_name_id=2 function_name_id=2}\n\n"
    head += "StackFrames\n1 {file_location_id=1 parent_frame_id=1}\n2 {file_location_id=2 parent_frame_id=2}\n\n"
    line = f'ROOT %f = f32[8,8] {line}, metadata={{op_name="x" stack_frame_id=2}}'
    entry = f"ENTRY %main (p: f32[8,8]) -> f32[8,8] {{\n  {line}\n}}"
    m = hlo.parse(f"HloModule m, is_scheduled=true\n\n{head}{INNER}\n\n{entry}\n")
    return parts.part(m, m.instruction("f"), collective)


MATMUL, ADD, COPY = "fusion(%p), kind=kOutput, calls=%matmul", "fusion(%p), kind=kLoop, calls=%add", "copy(%p)"


@pytest.mark.parametrize(
    ("frame", "line", "expected"),
    [
        ("models/llm.py:Mlp.__call__", MATMUL, "LLM matmuls"),
        ("models/llm.py:Mlp.__call__", ADD, "LLM norms, elementwise"),
        ("models/llm.py:Mlp.__call__", COPY, "copies, rest"),
        ("models/llm.py:Embedding.__call__", ADD, "embedding"),
        ("models/vit.py:Block.__call__", MATMUL, "ViT matmuls"),
        ("models/vit.py:Block.__call__", ADD, "ViT norms, elementwise"),
        ("ops/crop_attention.py:_by_crop.<locals>.crop", MATMUL, "ViT attention"),
        ("ops/crop_attention.py:_by_crop.<locals>.crop", COPY, "copies, ViT"),
        ("models/molmo2.py:Molmo2.hidden.<locals>.attend", MATMUL, "attention"),
        ("models/connector.py:Connector.__call__", MATMUL, "connector"),
        ("ops/loss.py:_local_sums", MATMUL, "loss"),
        ("site-packages/optax/_src/transform.py:update", ADD, "optimizer"),
        ("somewhere/else.py:f", ADD, "other"),
    ],
)
def test_an_instruction_belongs_to_the_part_of_its_source(frame, line, expected):
    assert part(frame, line) == expected


def test_collectives_are_a_part_of_their_own():
    assert part("models/llm.py:Mlp.__call__", ADD, collective=True) == "collectives"
