"""Time of the Pallas attention kernels, each an opaque call for the compiler.

A call on q [B, Q, N*H] and k [B, S, K*H] is assumed to visit the tiles of a causal mask (causal_tiles.py), with the
whole tiles on its diagonal. The ViT's kernels visit all pairs of a crop's patches; heads of 72 fill little more than
half of an MXU. The FLOPs of a call are those of its tiles. Its time is FLOPs / (peak x share), where `share` is the
fraction of time in which the kernel's static schedule keeps the MXUs busy (benchmarks/kernels_aot.py).
"""

from molmo2_jax.aot.causal_tiles import visited_pairs
from molmo2_jax.aot.chips import Chip
from molmo2_jax.aot.hlo import HloError, Instruction, Module, arrays
from molmo2_jax.ops.attention.pallas_tpu import BLOCKS

# Kernel -> (matrix products per tile, share of the peak on the tiles that it visits).
KERNELS = {
    "attention_forward": (2, 0.90),
    "attention_backward": (5, 0.93),
    "crops_forward": (2, 0.36),
    "crops_backward": (5, 0.43),
}


def cost(module: Module, i: Instruction, chip: Chip, token_order: str) -> tuple[float, float]:
    """(seconds, FLOPs) of one call on the busiest device.

    Raises:
      HloError: the kernel is not in KERNELS.
    """
    kernel = next((name for name in KERNELS if name in i.name or name in i.op_name), None)
    if kernel is None:
        raise HloError(f"no cost for the Pallas kernel {i.name} ({i.op_name}): add it to aot/kernel_cost.py")
    products, share = KERNELS[kernel]
    arrays_3d = [dims for name in i.operands for _, dims in arrays(module.instruction(name).type) if len(dims) == 3]
    (rows, queries, channels), (_, keys, key_channels), *_ = arrays_3d
    blocks = BLOCKS[chip.name]
    block = max(blocks.queries, blocks.keys) * (2 if channels == key_channels else 1)
    ring_step = "/cond/" in i.op_name
    pairs = queries * keys
    if not kernel.startswith("crops"):
        diagonal = 0 if ring_step else queries * block / 2
        pairs = min(visited_pairs(queries, keys, ring_step=ring_step, token_order=token_order) + diagonal, pairs)
    flops = 2.0 * products * rows * channels * pairs
    return flops / (chip.peak * share), flops
