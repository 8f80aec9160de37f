"""Peak rates and memory of one device of each TPU generation, as the vendor states them: a report's constants.

A device is what jax lists: a chip (v4 and v5p as megacore: two TensorCores, one program), or half a chip of 7x.

Sources: the system pages of cloud.google.com/tpu/docs for HBM bandwidth and FLOP/s (train/peak_flops.py); "How to scale
your model" (jax-ml.github.io/scaling-book) for what a link carries one way and where a torus closes; libtpu 0.0.42.1
for memory, of which it reserves a part. At these clocks the MXUs' multiply-adds per cycle give the stated peak; the
compiler's own estimate of an 8192^3 bfloat16 product is then 93, 88, 90, 70 and 81 % of it on v4, v5e, v5p, v6e and
7x.
"""

import dataclasses

from molmo2_jax.train.peak_flops import PEAK


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device. `kind` is jax's device_kind."""

    name: str
    kind: str
    hbm: float  # bytes that libtpu leaves to a program: the limit in its out-of-memory errors
    hbm_rate: float  # bytes/s
    clock: float  # cycles/s of the compiler's estimated_cycles
    link: float  # bytes/s of one ICI link in one direction
    wraps: int  # a torus axis is a closed ring if its size is a multiple of this
    dcn: float  # bytes/s over DCN: a device's share of its host's network

    @property
    def peak(self) -> float:
        """Dense bfloat16 FLOP/s."""
        return PEAK[self.kind]


GIB = 2**30
CHIPS = (
    Chip("v4", "TPU v4", 30.75 * GIB, 1.2e12, 1.05e9, 4.5e10, 4, 6.25e9),
    Chip("v5e", "TPU v5 lite", 15.75 * GIB, 8.1e11, 1.5e9, 4.5e10, 16, 3.1e9),
    Chip("v5p", "TPU v5", 95.74 * GIB, 2.76e12, 1.75e9, 9e10, 4, 6.25e9),
    Chip("v6e", "TPU v6 lite", 31.25 * GIB, 1.64e12, 1.75e9, 9e10, 16, 1.25e10),
    Chip("7x", "TPU7x", 94.75 * GIB, 3.69e12, 2.2e9, 4.5e10, 4, 6.25e9),
)


def find_chip(kind: str) -> Chip:
    """The chip whose device_kind is `kind`.

    Raises:
      ValueError: an unknown kind; the message lists the known chips.
    """
    for chip in CHIPS:
        if chip.kind == kind:
            return chip
    raise ValueError(f"no figures for devices of kind {kind!r}: add them to CHIPS, which has {[c.name for c in CHIPS]}")
