"""Parts by named scope; copies and collectives by what they are; every operation of the step in a scope."""

import importlib.util
import re

import numpy as np
import pytest

from molmo2_jax.aot import hlo, model_parts, program, topology
from molmo2_jax.aot.collectives import DeviceLayout
from molmo2_jax.aot.schedule import Schedule, Timer
from molmo2_jax.train.setup import set_up
from tests.molmo2_jax.aot import programs
from tests.molmo2_jax.aot.programs import V5E
from tests.molmo2_jax.models.small import small
from tests.molmo2_jax.train import small_run

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")

INNER = """%matmul (a: f32[8,8]) -> f32[8,8] {
  ROOT %c = f32[8,8] convolution(%a, %a), dim_labels=bf_io->bf
}

%add (a: f32[8,8]) -> f32[8,8] {
  ROOT %s = f32[8,8] add(%a, %a)
}"""


def part(op_name: str, line: str, collective: bool = False) -> str:
    m = programs.module(f'ROOT %f = f32[8,8] {line}, metadata={{op_name="{op_name}" stack_frame_id=2}}', INNER)
    return model_parts.part(m, m.instruction("f"), collective)


MATMUL, ADD, COPY = "fusion(%p), kind=kOutput, calls=%matmul", "fusion(%p), kind=kLoop, calls=%add", "copy(%p)"
FORWARD, BACKWARD = "jit(step)/optimizer/jvp(model)/{}", "jit(step)/optimizer/transpose(jvp(model))/{}"
LAYER = "/while/body/closed_call/checkpoint"


@pytest.mark.parametrize(
    ("op_name", "line", "expected"),
    [
        (FORWARD.format("llm") + f"{LAYER}/BSD,DF->BSF/dot_general", MATMUL, "LLM matmuls"),
        (BACKWARD.format("llm") + f"{LAYER}/rematted_computation/mul", ADD, "LLM norms, elementwise"),
        (BACKWARD.format("llm") + f"{LAYER}/transpose", COPY, "copies, rest"),
        (FORWARD.format("embedding") + "/shard_map/gather", ADD, "embedding"),
        (FORWARD.format("cond/branch_1_fun/vit") + "/while/body/dot_general", MATMUL, "ViT matmuls"),
        (BACKWARD.format("vit") + "/while/body/add_any", ADD, "ViT norms, elementwise"),
        (FORWARD.format("vit") + "/while/body/crop_attention/shard_map/pallas_call", MATMUL, "ViT attention"),
        (FORWARD.format("vit") + "/while/body/crop_attention/shard_map/reshape", COPY, "copies, ViT"),
        (FORWARD.format("vit") + "/while/body/copy", "copy-start(%p)", "copies, ViT"),
        (FORWARD.format("llm") + f"{LAYER}/attention/shard_map/while/body/dot_general", MATMUL, "attention"),
        (BACKWARD.format("llm") + f"{LAYER}/attention/shard_map/mul", ADD, "attention"),
        (BACKWARD.format("connector") + "/dot_general", MATMUL, "connector"),
        (BACKWARD.format("loss") + "/shard_map/while/body/dot_general", MATMUL, "loss"),
        ("jit(step)/optimizer/jvp(loss)/div", ADD, "loss"),
        (
            "jit(step)/optimizer/(transpose(jvp(model/embedding))/psum:jvp(loss)/psum)",
            ADD,
            "loss",
        ),  # two merged into one
        (FORWARD.format("reduce_or"), ADD, "LLM norms, elementwise"),  # between the modules: masks and rates
        ("jit(step)/optimizer/sqrt", ADD, "optimizer"),
        ("jit(step)/optimizer/while/body/add", ADD, "optimizer"),  # the sum of the microbatches' gradients
    ],
)
def test_an_instruction_belongs_to_its_innermost_scope(op_name, line, expected):
    assert part(op_name, line) == expected


@pytest.mark.parametrize(
    "op_name",
    [
        "jit(step)/jvp()/add",
        "jit(step)/transpose(jvp())/while/body/add",
        "jit(step)/llms/attention_forward/losses",  # a scope is a whole name
    ],
)
def test_what_was_traced_in_no_scope_is_other(op_name):
    assert part(op_name, ADD) == "other"


def test_a_product_of_the_model_in_none_of_its_modules_is_other():
    assert part(FORWARD.format("dot_general"), MATMUL) == "other"


def test_collectives_are_a_part_of_their_own():
    assert part("jit(step)/jvp(llm)/add", ADD, collective=True) == "collectives"


def scoped(name: str) -> str:
    return f'metadata={{op_name="jit(step)/jvp({name})/add"}}'


@pytest.mark.parametrize("op_name", ["", ', metadata={op_name="jit(step)/broadcast_in_dim"}'])
def test_a_fusion_without_a_path_has_that_of_what_it_fuses_the_root_first(op_name):
    inner = f"%inner (a: f32[8]) -> f32[8] {{\n  %b = f32[8] add(%a, %a), {scoped('vit')}\n"
    inner += f"  ROOT %c = f32[8] add(%b, %b), {scoped('loss')}\n}}"
    m = programs.module(f"ROOT %f = f32[8] fusion(%p), kind=kLoop, calls=%inner{op_name}", inner)
    assert model_parts.scope(m, m.instruction("f")) == "loss"


@pytest.mark.parametrize("op_name", ["", "convert.6", "jit(step)/convert_element_type"])
def test_an_instruction_without_a_path_belongs_to_its_user(op_name):
    op_name = f', metadata={{op_name="{op_name}"}}'
    m = programs.module(
        f"%a = f32[8] add(%p, %p), {scoped('vit')}\n%b = f32[8] convert(%a){op_name}\n"
        f"%t = (f32[8]) tuple(%b)\n%w = (f32[8]) while(%t), {scoped('llm')}\nROOT %c = f32[8] convert(%a){op_name}"
    )
    assert model_parts.scope(m, m.instruction("b")) == "llm"
    assert model_parts.scope(m, m.instruction("c")) == "vit"  # without a user: to what gives its operand


def test_an_instruction_without_a_path_in_a_loop_belongs_to_the_loop():
    body = "%body (i: f32[8]) -> f32[8] {\n  %i = f32[8] parameter(0)\n  ROOT %b = f32[8] convert(%i)\n}"
    m = programs.module(f"ROOT %w = f32[8] while(%p), condition=%body, body=%body, {scoped('loss')}", body)
    assert model_parts.scope(m, m.instruction("b")) == "loss"


SQUARE_4D = DeviceLayout(  # four chips, fsdp 2 and context 2
    ("data", "fsdp", "context", "tensor"), (1, 2, 2, 1), np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)])
)
ALL = {"LLM matmuls", "LLM norms, elementwise", "attention", "ViT matmuls", "ViT norms, elementwise", "ViT attention"}
ALL |= {"connector", "embedding", "loss", "optimizer", "copies, ViT", "copies, rest", "collectives"}


@pytest.fixture(scope="module")
def step_text() -> str:
    """The compiled step of a small model on four chips of v5e, with dropout, rematerialization and microbatches."""
    c = small_run.config(
        batch=4,
        microbatches=2,
        mesh={"data": 1, "fsdp": 2, "context": 2, "tensor": 1},
        model__dtype="bfloat16",
        model__token_order="zigzag",
        model__remat="full",
        model__vit_remat="full",
        data__row={"seq_len": 256, "crops": 2, "pooled": 128},
    )
    run = set_up(c, topology.devices("v5e:2x2"), small())
    return program.compile_program(program.lower(run)).text


def timed(m: hlo.Module) -> Schedule:
    return Timer(m, V5E, SQUARE_4D, lambda loop, scope: 1, lambda i: (0.0, 0.0)).schedule()


@needs_libtpu
def test_every_operation_of_the_step_is_in_a_scope(step_text):
    m = hlo.parse(step_text)
    s = timed(m)
    assert {c.part for c in s.costs} == ALL
    between_modules = sum(c.seconds for c in s.costs if model_parts.scope(m, c.instruction) == "model")
    assert between_modules < 0.01 * s.seconds


@needs_libtpu
@pytest.mark.parametrize("scope", sorted(model_parts.SCOPES.keys() - {"model"}))
def test_a_missing_scope_is_noticed(step_text, scope):
    without = re.sub(rf"(?<=/){scope}/|(?<=[/(]){scope}(?=\))", "", step_text)
    found = {c.part for c in timed(hlo.parse(without)).costs}
    # Products of no module are "other". The others lose their part: the embedding has none, both attentions are in a
    # stack, and "jit(step)/mul" could have been in a loop.
    part_is_lost = scope in ("embedding", "attention", "crop_attention", "optimizer")
    assert (model_parts.SCOPES[scope] if part_is_lost else "other") in ALL ^ found
