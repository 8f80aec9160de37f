"""Time of the Pallas attention kernels, which the compiler schedules as one opaque call.

A call on q [.., Q, ..] and k [.., S, ..] is taken to do the causal half of its tiles, whatever strategy cuts the sequence: on
average over the devices that is what is left of it. Its FLOPs are those of the products of the tiles it visits, its time
FLOPs / (peak x share), with the shares of the peak that the kernels' own static schedules reach
(benchmarks/kernels_aot.py).
"""

import math

from molmo2_jax.tools.aot.chips import Chip
from molmo2_jax.tools.aot.hlo import Instruction, Module, arrays

SHARE = {"forward": 0.90, "backward": 0.93}  # of the peak, on executed tiles
PRODUCTS = {"forward": 2, "backward": 5}  # matrix products a tile


def cost(module: Module, i: Instruction, chip: Chip) -> tuple[float, float]:
    """(seconds, FLOPs) of one call of an attention kernel, by the shapes of its queries and keys."""
    way = "backward" if "transpose" in i.op_name and "rematted" not in i.op_name else "forward"
    inputs = [dims for name in i.operands for t, dims in arrays(module.instruction(name).type) if t in ("bf16", "f32")]
    q, k = [dims for dims in inputs if len(dims) == 4][:2]
    pairs = q[1] * k[1] / 2
    flops = 2.0 * PRODUCTS[way] * math.prod((q[0], q[2], q[3])) * pairs
    return flops / (chip.peak * SHARE[way]), flops
