"""FLOPs of products, compared with counts by hand and by jax."""

import pytest

from molmo2_jax.aot.flop_count import product_flops
from tests.molmo2_jax.aot import programs


def flops(line: str, *operands: str) -> float:
    names = [f"%x{n} = {kind} parameter({n})" for n, kind in enumerate(operands)]
    m = programs.module("\n".join([*names, line]))
    return product_flops(m, m.computations[m.entry][-1])


PLAIN = "bf16[256,2048] convolution(%x0, %x1), dim_labels=bf_io->bf"
BATCH = "f32[8,64,32] convolution(%x0, %x1), window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf"
HEADS = "f32[9,32,128] convolution(%x0, %x1), window={size=32 pad=31_31 rhs_reversal=1}, dim_labels=b0f_0io->b0f"
EDGES = "f32[1,10,7] convolution(%x0, %x1), window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f"
DOT = "f32[4,6] dot(%x0, %x1), lhs_contracting_dims={0,2}, rhs_contracting_dims={1,0}"


@pytest.mark.parametrize(
    ("line", "operands", "by_hand"),
    [
        (PLAIN, ("bf16[256,512]", "bf16[512,2048]"), 256 * 2048 * 512),
        (BATCH, ("bf16[8,64,128]", "bf16[8,128,32]"), 8 * 64 * 32 * 128),
        (HEADS, ("bf16[9,1,512]", "bf16[32,512,128]"), 9 * 32 * 128 * 512),
        (EDGES, ("f32[1,10,5]", "f32[3,5,7]"), (3 * 10 - 2) * 5 * 7),  # the first and the last output meet two elements
        (DOT, ("f32[3,4,5]", "f32[5,3,6]"), 4 * 6 * 15),
        ("f32[4,6] add(%x0, %x1)", ("f32[4,6]", "f32[4,6]"), 0),
    ],
)
def test_products_by_hand(line, operands, by_hand):
    assert flops(f"ROOT %c = {line}", *operands) == 2 * by_hand


@pytest.mark.parametrize(("chip", "rows"), [("v5p", 256), ("v5e", 2048)])
def test_products_inside_fusions_count(chip, rows):
    m = programs.saved(chip)
    fused = {name for i in m._by_name.values() if i.opcode == "fusion" for name in i.called}
    run = [i for name, body in m.computations.items() if name not in fused for i in body]
    assert (
        sum(product_flops(m, i) for i in run) == 2 * 2 * rows * 512 * 2048
    )  # jax's cost_analysis: 0.2 % more, of sums
