"""The rows that a step is assumed to process, and the time of kernels on them."""

import numpy as np
import pytest

from data_pipelines.packing.schema import RowShape
from molmo2_jax.aot import kernel_cost
from molmo2_jax.aot.hlo import HloError
from molmo2_jax.aot.workload import Workload, full_row, workload
from molmo2_jax.models.config import PRESETS
from molmo2_jax.ops.attention.pallas_tpu import BLOCKS
from molmo2_jax.train.model_flops import flops_by_part, model_flops, visible_pairs
from tests.molmo2_jax.aot import programs
from tests.molmo2_jax.aot.programs import V5P
from tests.molmo2_jax.train import small_run

EIGHT_B = PRESETS["molmo2_8b"]
STAGE2 = RowShape(seq_len=16_384, crops=128, pooled=14_336)
STAGE3 = RowShape(seq_len=36_864, crops=384, pooled=32_768)


def stage2(mesh=(1, 64, 1, 1), microbatches=1, **model) -> Workload:
    """128 rows of stage 2 on a mesh of data, fsdp, context, tensor; keywords change RunConfig."""
    mesh = dict(zip(("data", "fsdp", "context", "tensor"), mesh, strict=True))
    run = small_run.config(**{f"model__{key}": value for key, value in ({"loss_chunk": 1024} | model).items()}).model
    return workload(run, EIGHT_B, STAGE2, mesh, batch=128, microbatches=microbatches)


def test_a_full_row_is_causal_and_has_no_padding():
    row = full_row(STAGE2)
    assert visible_pairs(row) == 16_384 * 16_385 // 2
    assert np.count_nonzero(row["visual_slots"] < 16_384) == 128 * 81 == 10_368
    assert np.count_nonzero(row["loss_weights"]) == 16_384 - 10_368


def test_flops_of_the_text_are_six_per_weight_and_token():
    flops = flops_by_part(EIGHT_B, full_row(STAGE2))
    block = 4096 * (2 * 4096 + 2 * 1024 + 3 * 12_288)
    assert flops["LLM matmuls"] == 6 * 36 * block * 16_384
    assert flops["attention"] == 12 * 36 * 4096 * 16_384 * 16_385 / 2
    assert flops["loss"] == 6 * 151_936 * 4096 * 6016
    assert sum(flops.values()) == model_flops(EIGHT_B, full_row(STAGE2))


def test_every_crop_is_counted_on_every_mesh():
    assert stage2((1, 64, 1, 1)).flops == stage2((1, 16, 4, 1), microbatches=8).flops
    assert flops_by_part(EIGHT_B, full_row(STAGE3))["ViT"] == pytest.approx(
        3 * flops_by_part(EIGHT_B, full_row(STAGE2))["ViT"]
    )


def test_trip_counts_follow_the_work_of_a_device():
    load = stage2()
    assert load.loss_chunks == -(-2 * 6016 // 1024)  # two rows per device
    assert load.attention_tiles == 2 * 64 * 65 // 2  # tiles of 256
    assert load.tokens == 128 * 16_384 and load.flops == {
        part: 128 * flops for part, flops in flops_by_part(EIGHT_B, full_row(STAGE2)).items()
    }


@pytest.mark.parametrize(
    ("order", "chunks"),
    [
        ("contiguous", 4),
        ("zigzag", 2),
    ],  # the last of four devices has 4,096 tokens with loss, or the last chunk's 2,048
)
def test_the_device_with_most_targets_counts(order, chunks):
    assert stage2((1, 16, 4, 1), microbatches=8, token_order=order).loss_chunks == chunks  # one row per device


@pytest.mark.parametrize(
    ("context", "order", "tiles", "ring"),
    [
        ("all_gather", "contiguous", 16 * 64 - 16 * 15 // 2, None),
        ("all_gather", "zigzag", 16 * 64 // 2 + 8, None),
        ("ring", "contiguous", 16 * 17 // 2, 16 * 16),
        ("ring", "zigzag", 16 * 17 // 2, 16 * 16 // 2),
        ("ulysses", "contiguous", 64 * 65 // 2, None),
    ],
)
def test_the_device_with_most_tiles_counts(context, order, tiles, ring):
    # One row per device, 16 of its 64 blocks of tokens.
    load = stage2((1, 16, 4, 1), microbatches=8, context=context, token_order=order)
    assert load.attention_tiles == tiles
    assert ring is None or load.ring_tiles == ring


def test_loops_are_known_by_their_scope():
    load = stage2()
    m = programs.module(
        '%w = s32[] while(%x), metadata={op_name="a/b"}\nROOT %r = s32[] while(%x), metadata={op_name="a/cond/b"}'
    )
    loop, ring = m.instruction("w"), m.instruction("r")
    assert load.trips(loop, "loss") == load.loss_chunks
    assert load.trips(loop, "attention") == load.attention_tiles
    assert load.trips(ring, "attention") == load.ring_tiles
    assert load.trips(loop, "vit") is None and load.trips(loop, None) is None


def call(name: str, q="bf16[2,16384,4096]", k="bf16[2,16384,1024]", op_name="jit(step)/while/body", order="contiguous"):
    lines = ["%n = s32[4096] parameter(0)", f"%q = {q} parameter(1)", f"%k = {k} parameter(2)"]
    line = f'ROOT %{name}.7 = f32[8] custom-call(%n, %q, %k, %k), metadata={{op_name="{op_name}/pallas_call"}}'
    m = programs.module("\n".join([*lines, line]))
    return kernel_cost.cost(m, m.instruction(f"{name}.7"), V5P, order)


def test_a_kernel_visits_the_causal_half_and_the_tiles_on_the_diagonal():
    seconds, flops = call("attention_forward")
    blocks = BLOCKS["v5p"]
    rows = range(blocks.queries, 16_384 + 1, blocks.queries)  # where blocks of queries end
    pairs = sum(blocks.queries * blocks.keys * -(-end // blocks.keys) for end in rows)
    assert flops == 2 * 2 * 2 * 4096 * pairs
    assert seconds == flops / (459e12 * kernel_cost.KERNELS["attention_forward"][1])
    assert call("attention_backward")[1] == 2.5 * flops


def test_the_last_device_of_a_sharded_sequence_has_most_keys():
    half_tiles = 4096 * BLOCKS["v5p"].keys / 2
    flops = call("attention_forward", q="bf16[2,4096,4096]")[1]
    assert flops == 2 * 2 * 2 * 4096 * (4096 * 16_384 - 4096 * 4096 / 2 + half_tiles)


def test_a_ring_step_that_is_not_skipped_has_all_keys():
    flops = call("attention_forward", op_name="jit(step)/while/body/cond/branch_1_fun")[1]
    assert flops == 2 * 2 * 2 * 4096 * 16_384 * 16_384


def test_zigzag_gives_every_device_half():
    cut, ring = {"q": "bf16[2,4096,4096]"}, {"op_name": "jit(step)/while/body/cond/branch_1_fun"}
    half_tiles = 4096 * BLOCKS["v5p"].keys / 2
    assert call("attention_forward", **cut, order="zigzag")[1] == 2 * 2 * 2 * 4096 * (4096 * 16_384 / 2 + half_tiles)
    assert call("attention_forward", **ring, order="zigzag")[1] == call("attention_forward", **ring)[1] / 2


def test_a_crop_attends_to_all_of_itself():
    seconds, flops = call("crops_forward", q="bf16[128,736,1152]", k="bf16[128,736,1152]")
    assert flops == 2 * 2 * 128 * 1152 * 736 * 736
    assert seconds == flops / (459e12 * kernel_cost.KERNELS["crops_forward"][1])


def test_an_unknown_kernel_is_named():
    with pytest.raises(HloError, match=r"no cost for the Pallas kernel conv\.7"):
        call("conv")
