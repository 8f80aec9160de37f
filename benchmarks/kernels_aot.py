"""The attention kernels, compiled ahead of time for TPUs: how well their schedule feeds the MXUs, next to splash.

    python benchmarks/kernels_aot.py                                       compiles ours for every chip and length
    python benchmarks/kernels_aot.py --topology=v5p:2x2x1 --dump=DIR       schedules of ours and of splash attention

The second form compiles our kernels and jax's splash attention (tiles 1,024 x 2,048 / 512, its fastest) for a causal
row and 32 query heads of 128, and reads the VLIW bundles that the compiler writes to DIR. Ours has 8 kv heads; splash
has 32, since its backward pass does not support groups. The figures are cycles of a compiled schedule, not times:

    cycles of a tile   bundles of the straight-line code with its matmuls, and waits for MXUs that fall behind
    MXU                busy cycles (16 bfloat16 or 8 float32 rows per vmatmul, v5p: 1 row per cycle) / cycles of a tile
    step               bundles of every grid step outside the tile
    call               tiles * (cycles + step) + grid steps without a tile * step, over the chip's cores

Needs libtpu (the extra "aot").
"""

import collections
import os
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import app, flags

if TYPE_CHECKING:  # at run time jax is imported after `start`
    import jax

# Topology, and cores that share a kernel.
CHIPS = {"v4": ("v4:2x2x1", 2), "v5e": ("v5e:2x2", 1), "v5p": ("v5p:2x2x1", 2), "v6e": ("v6e:2x2", 1)}
LENGTHS = (2_560, 16_384, 36_864)
HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
SPLASH_QUERIES, SPLASH_KEYS, SPLASH_COMPUTE = 1024, 2048, 512
HOT = 0.1  # a piece of code with at least this share of a kernel's matmuls is the body of a class of tiles
QUEUE = 32  # cycles
SHORT = 256  # longer pieces without matmuls run once per query block (zeros, results), not once per step

TOPOLOGY = flags.DEFINE_string("topology", None, "Print schedules for one topology; default: compile for all chips.")
DUMP = flags.DEFINE_string("dump", None, "Folder for the compiler's dump; default: a temporary folder.")
LENGTH = flags.DEFINE_integer("length", 16_384, "Tokens of the causal row.")


def start(dump: pathlib.Path | None) -> None:
    """Sets the environment of the compiler; call it before jax is imported."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if dump is not None:
        dump.mkdir(parents=True, exist_ok=True)
        if any(dump.iterdir()):
            sys.exit(f"--dump={dump}: the folder must be empty")
        os.environ["LIBTPU_INIT_ARGS"] = (
            f"--xla_jf_dump_to={dump} --xla_jf_dump_llo_text=true --xla_jf_emit_annotations=true"
        )


def one_chip(topology: str) -> "jax.sharding.Mesh":
    """A mesh of one device of the topology."""
    import jax

    from molmo2_jax.aot.topology import devices

    return jax.make_mesh((1,), ("one",), devices=devices(topology)[:1])


def compile_ours(mesh: "jax.sharding.Mesh", length: int) -> "Iterator[tuple[str, jax.stages.Compiled]]":
    """("forward", its compiled program) of one row, then ("backward", …)."""
    import jax
    import jax.numpy as jnp

    from molmo2_jax.ops.attention import mask, pallas_tpu

    def forward(q, k, v, until, group):
        return pallas_tpu.forward(q, k, v, *(mask.row_visibility(until, group),) * 2)

    def backward(q, k, v, until, group, lse, delta, d_out):
        return pallas_tpu.backward(q, k, v, *(mask.row_visibility(until, group),) * 2, lse, delta, d_out)

    def abstract(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, jax.P()))

    q, kv = (abstract(1, length, heads, HEAD_DIM) for heads in (HEADS, KV_HEADS))
    integers, sums = abstract(1, length, dtype=jnp.int32), abstract(1, HEADS, length, dtype=jnp.float32)
    with jax.set_mesh(mesh):
        for function, arguments in ((forward, (q, kv, kv)), (backward, (q, kv, kv))):
            arguments = (*arguments, integers, integers, *((sums, sums, q) if function is backward else ()))
            mapped = jax.shard_map(function, in_specs=jax.P(), out_specs=jax.P(), check_vma=False)
            yield function.__name__, jax.jit(mapped).lower(*arguments).compile()


def compile_splash(mesh: "jax.sharding.Mesh", length: int) -> None:
    """Compiles splash attention: its forward pass with residuals, dq and dkv."""
    import jax
    import jax.numpy as jnp
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    names = {"q": SPLASH_QUERIES, "kv": SPLASH_KEYS, "kv_compute": SPLASH_COMPUTE}
    sizes = {f"block_{name}{part}": size for name, size in names.items() for part in ("", "_dkv")}
    sizes = {name.replace("kv_compute_dkv", "kv_dkv_compute"): size for name, size in sizes.items()}
    sizes |= {"block_q_dq": SPLASH_QUERIES, "block_kv_dq": SPLASH_KEYS}
    causal = masks.MultiHeadMask([masks.CausalMask((length, length))] * HEADS)
    kernel = splash.make_splash_mha(causal, block_sizes=splash.BlockSizes(**sizes), head_shards=1, q_seq_shards=1)
    x = jax.ShapeDtypeStruct((HEADS, length, HEAD_DIM), jnp.bfloat16, sharding=jax.NamedSharding(mesh, jax.P()))

    def loss(q, k, v):
        return kernel(q, k, v).astype(jnp.float32).sum()

    gradients = jax.grad(loss, argnums=(0, 1, 2))
    jax.jit(gradients).trace(x, x, x).lower(lowering_platforms=("tpu",)).compile()


def read_schedule(path: pathlib.Path, rows_per_cycle: int) -> tuple[list[tuple[float, float]], int]:
    """([(cycles, MXU share) of each class of tiles, in program order], bundles of a grid step outside the tile)."""
    pieces = [[]]  # straight-line code: for each bundle, (MXU, cycles) of its vmatmuls
    loops = [False]
    for line in path.read_text(errors="replace").splitlines():
        head = line.split("{")[0]
        if re.match(r"\s*(0x[0-9a-f]+|0)\s*\w*\s*:", line):
            if "region" in head:
                pieces.append([])
                loops.append(False)
            pieces[-1].append([])
            loops[-1] = loops[-1] or ">" in head
        for kind, mxu in re.findall(r"vmatmul(\S*)\.(mxu\d)", line):
            pieces[-1][-1].append((mxu, (16 if "bf16" in kind else 8) / rows_per_cycle))
        if "sbr.rel" in line or "sbr.abs" in line:
            pieces.append([])
            loops.append(False)
    timed = [replay(piece) for piece in pieces]
    total = sum(busy for _, busy in timed)
    hot = [n for n, (_, busy) in enumerate(timed) if busy >= HOT * total > 0]
    cold = [len(piece) for n, piece in enumerate(pieces) if loops[n] and n not in hot]
    return [(timed[n][0], timed[n][1] / timed[n][0]) for n in hot], sum(size for size in cold if size <= SHORT)


def replay(piece: list[list[tuple[str, float]]]) -> tuple[float, float]:
    """(cycles, busy cycles of the busiest MXU): one bundle per cycle; a core waits for an MXU that is QUEUE behind."""
    now, free, busy = 0.0, collections.Counter(), collections.Counter()
    for bundle in piece:
        for mxu, cycles in bundle:
            begin = max(now, free[mxu])
            now = max(now, begin - QUEUE)
            free[mxu] = begin + cycles
            busy[mxu] += cycles
        now += 1
    return max([now, *free.values()]), max(busy.values(), default=0.0)


def schedules(topology: str, dump: pathlib.Path, length: int) -> None:
    """Compiles ours and splash, and prints the table."""
    mesh = one_chip(topology)
    chip = topology.split(":")[0]
    _, cores = CHIPS[chip]
    for name, compiled in compile_ours(mesh, length):
        print(f"ours, {name}: {compiled.memory_analysis().temp_size_in_bytes / 1e6:.0f} MB of temporaries")
    compile_splash(mesh, length)

    from molmo2_jax.aot import chips
    from molmo2_jax.ops.attention import pallas_tpu

    (clock,) = (one.clock for one in chips.CHIPS if one.name == chip)
    blocks = pallas_tpu.BLOCKS[chip]
    groups = length // blocks.queries
    ours = sum(-(-(i + 1) * blocks.queries // blocks.keys) for i in range(groups)) * KV_HEADS
    theirs = sum(-(-(i + 1) * SPLASH_QUERIES // SPLASH_KEYS) for i in range(length // SPLASH_QUERIES)) * HEADS
    grid = length // SPLASH_QUERIES * (length // SPLASH_KEYS) * HEADS
    kernels = {
        "attention_forward": (ours, ours),
        "attention_backward": (ours, ours),
        "splash_mha_fwd": (theirs, grid),
        "splash_mha_dq": (theirs, grid),
        "splash_mha_dkv": (theirs, grid),
    }
    print(f"\n{topology}, causal, {length:,} tokens, {HEADS} query heads of {HEAD_DIM}")
    print(f"{'kernel':<20}{'full tile':>10}{'MXU':>8}{'partial':>9}{'extra':>8}{'step':>6}{'tiles':>7}{'call ms':>9}")
    calls = {}
    for kernel, (tiles, steps) in kernels.items():
        (path,) = [p for p in dump.glob(f"*-{kernel}*-final_bundles.txt") if "schedule-analysis" not in p.name]
        classes, step = read_schedule(path, rows_per_cycle=2 if chip == "v6e" else 1)
        cycles, share = classes[-1]
        partial = classes[0][0] if len(classes) > 1 else cycles
        calls[kernel] = (tiles * cycles + steps * step) / cores / clock * 1e3
        extra = f"{partial / cycles - 1:.1%}" if len(classes) > 1 else "none"
        print(
            f"{kernel:<20}{cycles:>10.0f}{share:>8.1%}{partial:>9.0f}{extra:>8}{step:>6}{tiles:>7}{calls[kernel]:>9.2f}"
        )
    backward = calls["attention_backward"] / (calls["splash_mha_dq"] + calls["splash_mha_dkv"])
    print(f"ours / splash: forward {calls['attention_forward'] / calls['splash_mha_fwd']:.2f}, backward {backward:.2f}")


def main(_: list[str]) -> None:
    """Prints one line per compilation, or the table of schedules."""
    if TOPOLOGY.value is None:
        start(None)
        for chip, (topology, *_) in CHIPS.items():
            mesh = one_chip(topology)
            for length in LENGTHS:
                start_time = time.perf_counter()
                for name, compiled in compile_ours(mesh, length):
                    megabytes = compiled.memory_analysis().temp_size_in_bytes / 1e6
                    seconds = time.perf_counter() - start_time
                    print(
                        f"{chip:<4}{length:>7}  {name:<9}{megabytes:>7.0f} MB temporaries{seconds:>7.1f} s", flush=True
                    )
                    start_time = time.perf_counter()
        return
    with tempfile.TemporaryDirectory() as temporary:
        dump = pathlib.Path(DUMP.value or temporary).absolute()
        start(dump)
        schedules(TOPOLOGY.value, dump, LENGTH.value)


if __name__ == "__main__":
    app.run(main)
