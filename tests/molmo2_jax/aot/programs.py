"""Two compiled programs saved as text, and small ones written by hand.

`loop_v5p.hlo.txt` and `loop_v5e.hlo.txt` are the output of libtpu 0.0.42.1 for this on four chips, a mesh of data 2 and
fsdp 2; x is bf16[1024, 512] on v5p and bf16[8192, 512] on v5e:

    def layer(x, wv):
        w, v = (reshard(one, P(None, None)) for one in wv)       # [512, 2048] and [2048, 512], stored over fsdp
        return tanh(x @ w) @ v, None
    x, _ = scan(layer, x, (w_LDF, v_LFD))                        # x over data x fsdp, 6 layers
    x = fori_loop(0, n, lambda i, x: x * 1.01 + sin(x), x)       # n is an argument
    return cond(n > 3, lambda x: exp(sin(x)), lambda x: x, x).astype(float32).sum()
"""

import pathlib

import numpy as np

from molmo2_jax.aot import hlo
from molmo2_jax.aot.chips import CHIPS
from molmo2_jax.aot.collectives import DeviceLayout

HERE = pathlib.Path(__file__).parent
V5E, V5P = (next(c for c in CHIPS if c.name == name) for name in ("v5e", "v5p"))
SQUARE = DeviceLayout(("data", "fsdp"), (2, 2), np.array([(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]))


def saved(chip: str) -> hlo.Module:
    return hlo.parse((HERE / f"loop_{chip}.hlo.txt").read_text())


def module(entry: str, *others: str) -> hlo.Module:
    """A module of instructions, one per line; `others` are whole computations."""
    body = "\n".join(f"  {line.strip()}" for line in entry.strip().splitlines())
    text = "HloModule m, is_scheduled=true\n\n" + "\n\n".join(others)
    return hlo.parse(f"{text}\n\nENTRY %main (p: f32[8]) -> f32[8] {{\n{body}\n}}\n")


def cycles(n: int) -> str:
    return f'backend_config={{"window_config":{{"estimated_cycles":"{n}"}}}}'
