"""A long run of the loader in short: thousands of rows from a mixture in which 3 % of the media are broken.

    python benchmarks/soak.py --rows=5000

Images, clips and texts are small, so that many are made per second. Broken media are cut off, empty or not media.
Prints one JSON line: `rows`, `seconds`, resident memory of all processes after the first tenth of the rows and at the
end (MB) and its `growth`, examples `drawn`, how many of them were written `broken` and how many were counted as
`failed`, and the failures by reason. The exit status is 1 if memory grew by more than 5 % or a failure was not counted.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time
from collections import Counter

import av
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tqdm import tqdm

from data_pipelines.config import read_config
from data_pipelines.loading.config import DataConfig
from data_pipelines.loading.data import Data
from data_pipelines.media.archive import record_shard
from experiments import _base
from molmo2_jax.models import config as models

MEDIA = 100  # of each kind
BROKEN = {"image": 5, "video": 4, "text": 0}  # of these; 3 % of all examples, as the datasets have equal rates
ASK = {"style": "user_qa", "question": "What is this?", "answer": "Noise, as far as anyone can see."}


def main() -> None:
    """Makes the rows, and checks memory and counts."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--rows", type=int, default=5_000)
    flags.add_argument("--workers", type=int, default=2)
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(pathlib.Path(folder), args.rows, args.workers)
    print(json.dumps(result))
    sys.exit(0 if result["growth"] < 0.05 and result["failed"] == result["broken"] > 0 else 1)


def soak(folder: pathlib.Path, rows: int, workers: int) -> dict:
    """The values of the JSON line."""
    broken = {kind: write_dataset(folder / kind, kind) for kind in ("image", "video", "text")}
    loader = Data(config(folder, workers), vocab_size=models.TINY.llm.vocab, vision_shards=1).loader(
        seed=0, rows=[0, 1], streams=2
    )
    seen: Counter[str] = Counter()
    first, start = 0, time.perf_counter()
    try:
        for number in tqdm(range(rows // 2), unit="batch", disable=None):
            batch = next(loader)
            for example in (one for row in batch["examples"] for one in row):
                bad = example["id"] in broken[example["dataset"]]
                seen["drawn"] += 1
                seen["broken"] += bad
                if bad != (example["failed"] is not None):
                    raise AssertionError(f"{example} is {'broken' if bad else 'whole'}")
            if number == rows // 20:
                first = resident_mb()
        last, counts = resident_mb(), batch["counts"]
    finally:
        loader.close()
    reasons: Counter[str] = Counter()
    for one in counts.values():
        reasons.update(one["failures"])
    return {
        "rows": rows,
        "seconds": round(time.perf_counter() - start, 1),
        "first_mb": round(first, 1),
        "last_mb": round(last, 1),
        "growth": round(last / first - 1, 4),
        **seen,
        "failed": sum(reasons.values()),
        "reasons": dict(reasons),
    }


def config(folder: pathlib.Path, workers: int) -> DataConfig:
    """Short rows of three datasets."""
    datasets = {
        kind: {"source": str(folder / kind), "size": 1.0, "rate": 1.0, "weight": None, "high_res": 0.0}
        for kind in ("image", "video", "text")
    }
    data = _base.data(
        tokenizer="qwen-tokenizer",
        groups={"all": {"rate": 1.0, "datasets": datasets}},
        prompts={"templates": True, "style_prefix": "demo_or_style"},
        view={"max_frames": 4, "subtitles": "ignore", "max_crops": 2, "high_res_crops": 2},
        row={"seq_len": 1_536, "crops": 8, "pooled": 1_200},
        loader={"pool": 64, "max_failure_rate": 0.1, "workers": workers},
    )
    return read_config(DataConfig, data.to_dict(), "data")


def write_dataset(folder: pathlib.Path, kind: str) -> set[str]:
    """Writes a prepared folder whose records state the sizes of their media; returns the ids of the broken ones."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    writer = ArrayRecordWriter(str(folder / record_shard(0, 1)), "group_size:1")
    broken = set()
    for i in range(MEDIA):
        record = {"id": f"{kind}{i}", "messages": [ASK, ASK]}
        if kind == "image":
            name = f"{i}.jpg"
            size = (64 + 3 * i, 100)
            Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(folder / name)
            record["image"] = {"at": name, "width": size[0], "height": size[1]}
        elif kind == "video":
            name = f"{i}.mp4"
            write_clip(folder / name, rng)
            record["video"] = {"at": name, "width": 64, "height": 48, "duration": 1.5}
        if i < BROKEN[kind]:
            damage(folder / name, i % 3)
            broken.add(record["id"])
        writer.write(json.dumps(record).encode())
    writer.close()
    (folder / "info.json").write_text(json.dumps({"examples": MEDIA}))
    return broken


def write_clip(path: pathlib.Path, rng: np.random.Generator) -> None:
    """A second and a half of noise."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=10)
        stream.width, stream.height = 64, 48
        for _ in range(15):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (48, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def damage(path: pathlib.Path, number: int) -> None:
    """Cuts the file off, empties it, or replaces it by a text."""
    whole = path.read_bytes()
    path.write_bytes([whole[: len(whole) // 2], b"", b"This is a text."][number])


def resident_mb() -> float:
    """Resident memory of this process and of its children."""
    ours = str(os.getpid())
    family = [p for p in pathlib.Path("/proc").glob("[0-9]*") if p.name == ours or _parent(p) == ours]
    return sum(int((p / "statm").read_text().split()[1]) for p in family) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _parent(process: pathlib.Path) -> str:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:  # it has ended
        return ""


if __name__ == "__main__":
    main()
