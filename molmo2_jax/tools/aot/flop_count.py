"""FLOPs of the matrix products in a compiled program, from the shapes they are written with.

XLA:TPU writes every product as a convolution, with batches and extra dimensions as windows. Of a window only the places
that meet an element count, not padding and not the gaps of a dilation:

    BSD,DNH->BSNH   window={size=32 pad=31_31}                        32 places of N, each meets one of the 32
    ten products    window={size=10 stride=9 pad=0_0 lhs_dilate=10}   10 places, each meets one of the 10
"""

import functools
import math
import re

import numpy as np

from molmo2_jax.tools.aot.hlo import Instruction, Module, arrays


def product_flops(module: Module, i: Instruction) -> float:
    """FLOPs of an instruction and of what it fuses: 2 x multiply-adds of its products, 0 for all else."""
    inner = [x for name in i.called for x in module.inside(name)] if i.opcode == "fusion" else []
    return float(sum(_flops(module, x) for x in (i, *inner) if x.opcode in ("convolution", "dot")))


def _flops(module: Module, i: Instruction) -> int:
    (_, out), *_ = arrays(i.type)
    left, right = (arrays(module.instruction(name).type)[0][1] for name in i.operands[:2])
    if i.opcode == "dot":
        over = [int(n) for n in i.attribute("lhs_contracting_dims").strip("{}").split(",") if n]
        return 2 * math.prod(out) * math.prod(left[d] for d in over)
    lhs, kernel, result = re.split("_|->", i.attribute("dim_labels"))
    inputs, features, batch = right[kernel.index("i")], out[result.index("f")], out[result.index("b")]
    window = _window(i.attribute("window") or "", len(kernel) - 2)
    meets = [
        _meets(out[result.index(str(d))], left[lhs.index(str(d))], right[kernel.index(str(d))], *window[d])
        for d in range(len(kernel) - 2)
    ]
    return 2 * batch * features * inputs * math.prod(meets)


def _window(text: str, dims: int) -> list[tuple[int, int, int, int]]:
    """(stride, padding before, dilation of the input, of the kernel) of each dimension; what is not written is none."""

    def numbers(key: str, default: int) -> list[int]:
        found = re.search(rf"\b{key}=([\dx_\-]+)", text)
        return [default] * dims if found is None else [int(n.split("_")[0]) for n in found[1].split("x")]

    keys = (("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1))
    return list(zip(*(numbers(*key) for key in keys), strict=True))


@functools.cache
def _meets(out: int, size: int, kernel: int, stride: int, pad: int, dilate: int, kernel_dilate: int) -> int:
    """Pairs (place of the output, element of the kernel) that meet an element of the input along one dimension."""
    starts = np.arange(out) * stride - pad
    total = 0
    for k in range(kernel):
        at = starts + k * kernel_dilate
        total += int(np.count_nonzero((at >= 0) & (at < (size - 1) * dilate + 1) & (at % dilate == 0)))
    return total
