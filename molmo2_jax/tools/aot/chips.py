"""What one device of each TPU generation can do, as the vendor states it. Every number of a report's roofs is here.

A device is what jax lists: a chip (v4 and v5p as megacore: two TensorCores, one program), and half a chip of 7x.

Sources: the system pages of cloud.google.com/tpu/docs for HBM bandwidth and FLOP/s (in train/flops.py); "How to scale
your model" (jax-ml.github.io/scaling-book) for what a link carries one way and where a torus closes; libtpu 0.0.42.1
for memory, of which it keeps some. Clocks are those with which the MXUs' multiply-adds a cycle come to the stated
peak; the compiler's own estimate of an 8192^3 bfloat16 product is then 93, 88, 90, 70 and 81 % of it on v4, v5e, v5p,
v6e and 7x.
"""

import dataclasses

from molmo2_jax.train.flops import PEAK


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device. `kind` is jax's device_kind."""

    name: str
    kind: str
    hbm: float  # bytes that libtpu leaves to a program; it says so when it refuses one
    hbm_rate: float  # bytes/s
    clock: float  # cycles/s of estimated_cycles
    link: float  # bytes/s of one ICI link in one direction
    wraps: int  # an axis of the torus is closed to a ring where its size is a multiple of this
    dcn: float  # bytes/s of a device's share of its host's network

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


def chip(kind: str) -> Chip:
    """The chip whose device_kind is `kind`. ValueError with the known ones otherwise."""
    for known in CHIPS:
        if known.kind == kind:
            return known
    raise ValueError(f"no figures for devices of kind {kind!r}; there are those of {[c.name for c in CHIPS]}")
