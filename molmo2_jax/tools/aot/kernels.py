"""Time of the Pallas attention kernels, which the compiler schedules as one opaque call.

A call on q [B, Q, N*H] and k [B, S, K*H] is taken to visit the tiles of a causal mask, as causal.py says,
and the half tiles that hang over the diagonal. The ViT's kernels visit all pairs of a crop's patches; heads of 72 fill
little more than half of an MXU. A call's FLOPs are those of the tiles, its time FLOPs / (peak x share), with the share
of the time in which the kernel's own static schedule keeps the MXUs busy (benchmarks/kernels_aot.py).
"""

from molmo2_jax.ops.pallas_attention import BLOCKS
from molmo2_jax.tools.aot.causal import visited
from molmo2_jax.tools.aot.chips import Chip
from molmo2_jax.tools.aot.hlo import HloError, Instruction, Module, arrays

# Kernel: matrix products of a tile, and share of the peak on the tiles that are visited.
KERNELS = {
    "attention_forward": (2, 0.90),
    "attention_backward": (5, 0.93),
    "crops_forward": (2, 0.36),
    "crops_backward": (5, 0.43),
}


def cost(module: Module, i: Instruction, chip: Chip, token_order: str) -> tuple[float, float]:
    """(seconds, FLOPs) of one call on the device with most to do. HloError for a kernel that is not known here."""
    kernel = next((name for name in KERNELS if name in i.name or name in i.op_name), None)
    if kernel is None:
        raise HloError(f"a Pallas kernel without a known cost: {i.name} ({i.op_name})")
    products, share = KERNELS[kernel]
    wide = [dims for name in i.operands for _, dims in arrays(module.instruction(name).type) if len(dims) == 3]
    (rows, queries, channels), (_, keys, key_channels), *_ = wide
    blocks = BLOCKS[chip.name]
    block = max(blocks.queries, blocks.keys) * (2 if channels == key_channels else 1)
    ring_step = "/cond/" in i.op_name
    pairs = queries * keys
    if not kernel.startswith("crops"):
        diagonal = 0 if ring_step else queries * block / 2
        pairs = min(visited(queries, keys, ring_step=ring_step, token_order=token_order) + diagonal, pairs)
    flops = 2.0 * products * rows * channels * pairs
    return flops / (chip.peak * share), flops
