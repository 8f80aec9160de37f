"""Blockwise against dense attention on this machine: memory by length, time on packed rows, savings by masking.

    python benchmarks/attention.py          forward and backward, float32, 8 query and 2 kv heads of 64, one row

Prints tables; compare ratios within one run only. `allowed` is the share of pairs that the mask allows.
"""

import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from molmo2_jax.ops.attention import blockwise as blockwise_kernel
from molmo2_jax.ops.attention import mask
from molmo2_jax.ops.attention.blockwise import BLOCK
from molmo2_jax.ops.attention.dense import dense_attention

HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64
REPEATS = 5


@jax.jit
def dense(q: jax.Array, k: jax.Array, v: jax.Array, vis: mask.Visibility) -> tuple[jax.Array, ...]:
    """Gradients of sum(sin(attention)) with respect to queries, keys and values, with the oracle."""
    return jax.grad(lambda *qkv: jnp.sum(jnp.sin(dense_attention(*qkv, vis, vis))), argnums=(0, 1, 2))(q, k, v)


@functools.partial(jax.jit, static_argnames="block")
def blockwise(
    q: jax.Array, k: jax.Array, v: jax.Array, vis: mask.Visibility, block: int = BLOCK
) -> tuple[jax.Array, ...]:
    """The same with the blockwise kernel."""
    out, lse = blockwise_kernel.forward(q, k, v, vis, vis, block)
    d_out = jnp.cos(out)
    delta = jnp.einsum("BQNH,BQNH->BNQ", d_out, out)
    return blockwise_kernel.backward(q, k, v, vis, vis, lse, delta, d_out, block)


def row(length: int, layout: str) -> tuple:
    """(q, k, v, visibility) of one row, by layout:

    causal   one example, causal: the most pairs that a row of text can have
    packed   sixteen text examples of equal length
    tuning   as in fine-tuning: a bidirectional video in three quarters of each example, then four branches
    """
    rng = np.random.default_rng(0)
    until, group = np.zeros((2, 1, length), np.int32)
    examples = {"causal": 1, "packed": 16, "tuning": 4}[layout]
    size = length // examples
    for e in range(examples):
        start, stop = e * size, (e + 1) * size
        until[0, start:stop] = stop
        if layout == "tuning":
            video = start + size * 3 // 4
            group[0, start:video] = e + 1
            branch = (stop - video) // 4
            for b in range(4):
                until[0, video + b * branch : video + (b + 1) * branch] = video + (b + 1) * branch
    q, k, v = (jnp.asarray(rng.normal(size=(1, length, n, HEAD_DIM)), jnp.float32) for n in (HEADS, KV_HEADS, KV_HEADS))
    return q, k, v, mask.row_visibility(jnp.asarray(until), jnp.asarray(group))


def megabytes(function: jax.stages.Wrapped, args: tuple) -> float:
    """Temporary memory of the compiled forward and backward pass."""
    return function.lower(*args).compile().memory_analysis().temp_size_in_bytes / 1e6


def seconds(run: Callable, args: tuple) -> float:
    """Median wall time after a warm-up run."""
    jax.block_until_ready(run(*args))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(run(*args))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def allowed_share(vis: mask.Visibility) -> float:
    """Share of the S x S pairs that are allowed, counted row block by row block."""
    length = vis.index.shape[1]
    count = sum(
        int(mask.allowed(jax.tree.map(lambda x, i=i: x[:, i : i + 256], vis), vis).sum()) for i in range(0, length, 256)
    )
    return count / length**2


def main() -> None:
    """Prints the three tables."""
    print(f"{jax.devices()[0].device_kind}, forward and backward, blocks of {BLOCK}\n")
    print("memory, causal row       dense MB  blockwise MB   ratio")
    for length in (2048, 4096, 8192):
        args = row(length, "causal")
        whole, tiled = megabytes(dense, args), megabytes(blockwise, args)
        print(f"  S = {length:<20}{whole:>8.0f}{tiled:>14.1f}{whole / tiled:>8.0f}")

    print("\ntime, S = 4096           allowed   dense s  blockwise s   ratio")
    for layout in ("causal", "packed", "tuning"):
        args = row(4096, layout)
        whole, tiled = seconds(dense, args), seconds(blockwise, args)
        share = allowed_share(args[-1])
        print(f"  {layout:<22}{share:>8.1%}{whole:>10.3f}{tiled:>13.3f}{whole / tiled:>8.1f}")

    print("\nsavings by masking, S = 8192: the same row without a mask, and with")
    q, k, v, tuning = row(8192, "tuning")
    everything = seconds(blockwise, (q, k, v, tuning._replace(group=jnp.ones_like(tuning.group))))
    rows = {"packed fine-tuning examples": tuning}
    for examples in (3, 5, 10):
        group = jnp.arange(8192)[None] * examples // 8192 + 1
        until = jnp.zeros_like(tuning.until)
        rows[f"{examples} blocks on the diagonal"] = mask.Visibility(tuning.index, until, group)
    for name, vis in rows.items():
        took, share = seconds(blockwise, (q, k, v, vis)), 1 - allowed_share(vis)
        ratio = everything / took
        print(f"  {name:<28}{share:>5.0%} masked{took:>8.3f} s {ratio:>6.1f} times faster than {everything:.3f} s")

    print("\nblock size, S = 4096, packed fine-tuning row")
    args = row(4096, "tuning")
    for block in (128, 256, 512):
        print(f"  {block:<8}{seconds(functools.partial(blockwise, block=block), args):.3f} s")


if __name__ == "__main__":
    main()
