"""Fill of packed rows, and time and memory of packing.

    python benchmarks/packing.py                                      a stream like the fine-tuning mixture
    python benchmarks/packing.py --lengths=FILE.npz --tokens=16384 --crops=128

FILE.npz holds two integer arrays with one entry per example: `tokens` and `crops`. Prints one JSON line: `rows` used,
`lower_bound` = max(sum tokens / budget, sum crops / budget), examples `packed`, `ms_per_row` of packing, and `pool_mb`,
the memory of a window of `--pool` sizes. The public reference, on such a stream: 1.6 % over the bound with 43 of 6,000
examples still waiting, 2.5 ms per row, a pool of 48 decoded examples.
"""

import argparse
import json
import math
import time
import tracemalloc

import numpy as np

from data_pipelines.packing.pack import Size, pack
from data_pipelines.packing.schema import RowShape

POOLED = {1: 392, 2: 518, 4: 725, 6: 955, 8: 1162}  # visual tokens of an image by its crops other than the overview


def main() -> None:
    """Packs a stream in windows, as the loader does."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--lengths", help="arrays `tokens` and `crops`, one entry per example")
    flags.add_argument("--tokens", type=int, default=16_384, help="tokens per row")
    flags.add_argument("--crops", type=int, default=128, help="crops per row")
    flags.add_argument("--pool", type=int, default=1_000, help="examples packed at a time")
    args = flags.parse_args()
    if args.lengths is None:
        tokens, crops = fine_tuning_stream(6_000, np.random.default_rng(0))
    else:
        with np.load(args.lengths) as arrays:
            tokens, crops = arrays["tokens"], arrays["crops"]
    print(json.dumps(measure(tokens, crops, args.tokens, args.crops, args.pool)))


def measure(tokens: np.ndarray, crops: np.ndarray, max_tokens: int, max_crops: int, pool: int) -> dict:
    """The values of the JSON line. Visual tokens have no budget of their own: they are some of the tokens."""
    shape = RowShape(seq_len=max_tokens, crops=max_crops, pooled=max_tokens)
    pairs = list(zip(tokens.tolist(), crops.tolist(), strict=True))
    windows = [pairs[start : start + pool] for start in range(0, len(pairs), pool)]
    rows, done, seconds, held = 0, 0, 0.0, 0
    for window in windows:
        tracemalloc.start()
        sizes = [Size(t, c, 0, ((c, 0),) if c else ()) for t, c in window]
        held = max(held, tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        start = time.perf_counter()
        packed = pack(sizes, shape)
        seconds += time.perf_counter() - start
        rows += len(packed)
        done += len({i for row in packed for i in row})
        for row in packed:
            if sum(window[i][0] for i in row) > max_tokens or sum(window[i][1] for i in row) > max_crops:
                raise AssertionError(f"a row is over its budget: {[window[i] for i in row]}")
    return {
        "rows": rows,
        "lower_bound": math.ceil(max(tokens.sum() / max_tokens, crops.sum() / max_crops)),
        "packed": done,
        "ms_per_row": round(1e3 * seconds / rows, 3),
        "pool_mb": round(held / 1e6, 2),
    }


def fine_tuning_stream(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and crops of examples like those of the fine-tuning mixture: on average 3,545 tokens and 34 crops.

    16 % are text, 47 % images with crops by their size, 5 % sets of 2 to 5 images, the rest videos: shorter than a
    minute at two frames per second, or 128 frames of a longer one.
    """
    tokens, crops = np.zeros(count, np.int64), np.zeros(count, np.int64)
    kinds = rng.choice(4, size=count, p=[0.16, 0.47, 0.05, 0.32])
    text = np.minimum(rng.lognormal(5.3, 1.1, count).astype(np.int64) + 20, 4_000)
    for i, kind in enumerate(kinds):
        if kind == 3:
            frames = 128 if rng.random() < 0.42 else int(rng.integers(8, 128))
            tokens[i], crops[i] = 89 * frames, frames
        elif kind:
            images = rng.choice(
                list(POOLED), size=1 if kind == 1 else rng.integers(2, 6), p=[0.1, 0.15, 0.35, 0.2, 0.2]
            )
            tokens[i] = sum(POOLED[int(n)] + 30 for n in images)
            crops[i] = sum(int(n) + 1 for n in images)
        tokens[i] += text[i]
    return tokens, crops


if __name__ == "__main__":
    main()
