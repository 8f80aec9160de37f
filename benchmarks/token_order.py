"""How evenly attention's tiles are distributed over the devices along context, by token order: counted, not timed.

    python benchmarks/token_order.py        rows of 36,864 tokens, tiles of 512 x 512

With gathered keys a layer takes as long as its busiest device. In a ring a device's step ends when it has finished its
tiles and both neighbours have begun theirs, since they exchange keys. Both columns are multiples of the mean, the time
of a perfect balance; `steps run`: the ring steps of all devices that are not skipped.
"""

import jax
import jax.numpy as jnp
import numpy as np

from molmo2_jax.ops.attention import mask
from molmo2_jax.ops.attention.token_order import TOKEN_ORDERS, row_index

LENGTH, BLOCK = 36_864, 512
FRAMES, FRAME = 384, 81  # a frame's visual tokens are between two text tokens, after a timestamp of about five


def text(examples: int) -> tuple[np.ndarray, np.ndarray]:
    """(visible_until, image_group) of equally long causal examples."""
    size = LENGTH // examples
    return (np.arange(LENGTH) // size + 1) * size, np.zeros(LENGTH)


def video() -> tuple[np.ndarray, np.ndarray]:
    """One video of 384 frames that see each other, then text to the end of the row."""
    group = np.zeros(LENGTH)
    for frame in range(FRAMES):
        start = frame * (FRAME + 7) + 6
        group[start : start + FRAME] = 1
    return np.full(LENGTH, LENGTH), group


def videos(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Shorter videos in one row, each three quarters of its example."""
    until, _ = text(count)
    size = LENGTH // count
    return until, np.where(np.arange(LENGTH) % size < size * 3 // 4, np.arange(LENGTH) // size + 1, 0)


ROWS = {
    "text, 1 example": text(1),
    "text, 16 examples": text(16),
    "1 video of 384 frames": video(),
    "3 videos": videos(3),
    "12 videos": videos(12),
}


def tiles(until: np.ndarray, group: np.ndarray, order: str, shards: int) -> np.ndarray:
    """int[shards, shards]: tiles with an allowed pair, of each device's queries with each device's keys."""
    index = row_index(order, np.arange(LENGTH), LENGTH, shards)
    shape = (shards, LENGTH // shards)
    vis = mask.Visibility(*(jnp.asarray(x[index].reshape(shape), jnp.int32) for x in (np.arange(LENGTH), until, group)))
    size = -(-shape[1] // BLOCK) * BLOCK
    vis = mask.pad_queries(vis, size)
    queries, keys = (jax.tree.map(lambda x, at=at: jnp.expand_dims(x, at), vis) for at in (1, 0))
    return np.asarray((mask.tile_classes(queries, keys, BLOCK, BLOCK) != mask.EMPTY).sum((2, 3)))


def main() -> None:
    """Prints the table."""
    print(f"{'row':<24}{'devices':>8}{'order':>12}{'tiles':>8}{'steps run':>11}{'ring':>7}{'gathered':>10}")
    for name, (until, group) in ROWS.items():
        for shards in (2, 4, 8):
            for order in TOKEN_ORDERS:
                found = tiles(until, group, order, shards)
                device = np.arange(shards)
                end = np.zeros(shards)
                for step in range(shards):
                    start = end
                    end = start + found[device, (device - step) % shards]
                    end = np.max([end, np.roll(start, 1), np.roll(start, -1)], axis=0)
                ring, gathered = (x / found.sum() * shards for x in (end.max(), found.sum(1).max()))
                run = f"{np.count_nonzero(found)} / {shards**2}"
                print(f"{name:<24}{shards:>8}{order:>12}{found.sum():>8}{run:>11}{ring:>7.2f}{gathered:>10.2f}")


if __name__ == "__main__":
    main()
