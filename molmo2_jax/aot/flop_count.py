"""FLOPs of the matrix products in a compiled program, from their shapes.

XLA:TPU writes every product as a convolution, with batches and extra dimensions as windows. Only window positions that
meet an element of the input count, not those in padding or in the gaps of a dilation:

    BSD,DNH->BSNH   window={size=32 pad=31_31}                        32 outputs along N, each meets one of the 32
    ten products    window={size=10 stride=9 pad=0_0 lhs_dilate=10}   10 outputs, each meets one of the 10
"""

import functools
import math
import re

import numpy as np

from molmo2_jax.aot.hlo import Instruction, Module, arrays


def product_flops(module: Module, i: Instruction) -> float:
    """FLOPs of an instruction and of what it fuses: 2 x the multiply-adds of matrix products, 0 for anything else."""
    inner = [x for name in i.called for x in module.inside(name)] if i.opcode == "fusion" else []
    return float(sum(_one_product_flops(module, x) for x in (i, *inner) if x.opcode in ("convolution", "dot")))


def _one_product_flops(module: Module, i: Instruction) -> int:
    (_, out), *_ = arrays(i.type)
    left, right = (arrays(module.instruction(name).type)[0][1] for name in i.operands[:2])
    if i.opcode == "dot":
        contracted = [int(n) for n in i.attribute("lhs_contracting_dims").strip("{}").split(",") if n]
        return 2 * math.prod(out) * math.prod(left[d] for d in contracted)
    lhs, kernel, result = re.split("_|->", i.attribute("dim_labels"))
    inputs, features, batch = right[kernel.index("i")], out[result.index("f")], out[result.index("b")]
    window = _window(i.attribute("window") or "", len(kernel) - 2)
    overlaps = [
        _overlaps(out[result.index(str(d))], left[lhs.index(str(d))], right[kernel.index(str(d))], *window[d])
        for d in range(len(kernel) - 2)
    ]
    return 2 * batch * features * inputs * math.prod(overlaps)


def _window(text: str, dims: int) -> list[tuple[int, int, int, int]]:
    """(stride, padding before, dilation of the input, of the kernel) of each dimension, with XLA's defaults."""

    def numbers(key: str, default: int) -> list[int]:
        found = re.search(rf"\b{key}=([\dx_\-]+)", text)
        return [default] * dims if found is None else [int(n.split("_")[0]) for n in found[1].split("x")]

    keys = (("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1))
    return list(zip(*(numbers(*key) for key in keys), strict=True))


@functools.cache
def _overlaps(out: int, size: int, kernel: int, stride: int, pad: int, dilate: int, kernel_dilate: int) -> int:
    """Pairs (output index, kernel index) along one dimension that meet an element of the input."""
    starts = np.arange(out) * stride - pad
    total = 0
    for k in range(kernel):
        index = starts + k * kernel_dilate  # into the padded and dilated input
        total += int(np.count_nonzero((index >= 0) & (index < (size - 1) * dilate + 1) & (index % dilate == 0)))
    return total
