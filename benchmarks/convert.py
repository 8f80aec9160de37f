"""`molmo2 convert` in both directions at the size of Molmo2-4B: speed compared with a file copy, and peak memory.

    python benchmarks/convert.py                 9.7 GB of weights: 30 GB of disk, eight minutes on two shared cores
    python benchmarks/convert.py --scale=9       a ninth of the layers, for a quick run
    python benchmarks/convert.py --dir=/data     folder for the files, which are removed at the end

Writes a checkpoint in the released layout (random bfloat16 weights, files of 4 GB), copies it, converts it to Orbax and
back, each in a separate process, and compares every tensor of the result with the original. Fails if one differs or a
conversion needs more than 3 GiB of memory, including mapped file pages.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import ml_dtypes
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.models import config as models
from molmo2_jax.models.structure import structure
from molmo2_jax.weights.hf.config import write_config
from molmo2_jax.weights.hf.source import tensors_of

SHARD_BYTES = 4 << 30
LIMIT_BYTES = 3 << 30  # of memory, for a conversion
BLOCK = 33_554_393  # random values in memory; a prime, so that all rows of a matrix differ
PIECE = 1 << 26  # bytes written, copied or compared at a time
TABLE, HEAD = "model.transformer.wte.embedding", "lm_head.weight"


class Shapes(NamedTuple):
    """A ParameterSource without values."""

    where: str
    arrays: dict[str, jax.ShapeDtypeStruct]


class Run(NamedTuple):
    """Time and memory of a conversion."""

    seconds: float
    cpu: float  # CPU seconds of all cores
    peak: int  # peak resident bytes, including file pages
    anonymous: int  # peak bytes that are not file pages, sampled; 0 where /proc is missing


def architecture(scale: int) -> models.Molmo2Config:
    """Molmo2-4B with a part of its layers."""
    c = models.preset("molmo2_4b")
    layers = max(2, c.vit.layers // scale)
    vit = dataclasses.replace(c.vit, layers=layers, feature_layers=(layers - 1, layers * 3 // 4 - 1))
    return dataclasses.replace(c, vit=vit, llm=dataclasses.replace(c.llm, layers=max(1, c.llm.layers // scale)))


def tensor_shapes(c: models.Molmo2Config) -> dict[str, tuple[int, ...]]:
    """Every tensor of the released layout."""
    with jax.set_mesh(sharding.single_device_mesh()):
        s = structure(c)
    parameters = {name: jax.ShapeDtypeStruct(shape, ml_dtypes.bfloat16) for name, shape in s.shapes.items()}
    return {key: a.shape for key, a in tensors_of(Shapes("", parameters), s, "released", None)[0].items()}


def write_checkpoint(folder: pathlib.Path, c: models.Molmo2Config) -> int:
    """Writes a released checkpoint of random weights without our own writer; returns the bytes of its tensors."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(write_config(c, 36_864, "bfloat16")))
    shapes = tensor_shapes(c)
    shards: list[list[str]] = [[]]
    for key in shapes:
        if sum(2 * math.prod(shapes[k]) for k in [*shards[-1], key]) > SHARD_BYTES:
            shards.append([])
        shards[-1].append(key)
    block = (0.02 * np.random.default_rng(0).standard_normal(BLOCK, np.float32)).astype(ml_dtypes.bfloat16)
    block = memoryview(block.view(np.uint8))
    index: dict[str, str] = {}
    for number, keys in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        index |= dict.fromkeys(keys, name)
        with (folder / name).open("wb") as file:
            file.write(header({key: shapes[key] for key in keys}))
            for key in keys:
                # A tied head is stored as a copy of the table.
                start = hash_of(TABLE if key == HEAD else key) % BLOCK * 2
                write_from(file, block, start, 2 * math.prod(shapes[key]))
            file.flush()
            os.fsync(file.fileno())
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )
    return total


def header(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The header of a safetensors file: the length of the JSON, then the offsets of each tensor."""
    entries, start = {}, 0
    for key, shape in shapes.items():
        stop = start + 2 * math.prod(shape)
        entries[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def hash_of(key: str) -> int:
    """The same number for the same key on every run."""
    return int.from_bytes(np.random.default_rng(list(key.encode())).bytes(6), "little")


def write_from(file, block: memoryview, start: int, nbytes: int) -> None:
    """Writes `nbytes` of `block`, repeated endlessly, from `start` on."""
    while nbytes:
        part = block[start : start + min(nbytes, PIECE)]
        file.write(part)
        nbytes -= len(part)
        start = (start + len(part)) % len(block)


def copy(source: pathlib.Path, target: pathlib.Path, sync: bool) -> float:
    """Seconds of a plain copy of a folder's files; with `sync`, including fsync, which Orbax calls, too."""
    start = time.perf_counter()
    target.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)
        if sync:
            with (target / path.name).open("rb+") as file:
                os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def convert(source: str, target: str, log: pathlib.Path) -> Run:
    """Runs `molmo2 convert` and measures its memory."""
    command = [sys.executable, "-m", "molmo2_jax.cli", "convert", f"--from={source}", f"--to={target}"]
    anonymous, pid = 0, 0
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        while not pid:
            time.sleep(0.02)
            anonymous = max(anonymous, anonymous_bytes(process.pid))
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{log.read_text()}\n{' '.join(command)} ended with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, anonymous)


def anonymous_bytes(pid: int) -> int:
    """Memory of a process without file pages, where /proc exists."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def tensors(folder: pathlib.Path) -> Iterator[tuple[str, tuple, pathlib.Path, int, int]]:
    """(key, (dtype, shape), file, first byte, bytes) of every tensor of a folder."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entries = json.loads(file.read(length))
        for key, entry in entries.items():
            if key != "__metadata__":
                start, stop = entry["data_offsets"]
                yield key, (entry["dtype"], entry["shape"]), path, 8 + length + start, stop - start


def differences(first: pathlib.Path, second: pathlib.Path) -> list[str]:
    """Keys of the tensors in which two folders differ."""
    a, b = ({key: rest for key, *rest in tensors(folder)} for folder in (first, second))
    wrong = sorted(a.keys() ^ b.keys())
    for key in a.keys() & b.keys():
        (kind, path, start, nbytes), (other_kind, other_path, other_start, _) = a[key], b[key]
        if kind != other_kind:
            wrong.append(key)
            continue
        with path.open("rb") as one, other_path.open("rb") as other:
            one.seek(start), other.seek(other_start)
            while nbytes:
                size = min(nbytes, PIECE)
                if one.read(size) != other.read(size):
                    wrong.append(key)
                    break
                nbytes -= size
    return wrong


def measure(folder: pathlib.Path, scale: int) -> dict:
    """Runs all measurements in `folder` and prints the table."""
    c = architecture(scale)
    hf, orbax, back = folder / "hf", folder / "orbax", folder / "back"
    start = time.perf_counter()
    nbytes = write_checkpoint(hf, c)
    count = len(list(tensors(hf)))
    print(
        f"{count} tensors, {nbytes / 1e9:.2f} GB bfloat16, written in {time.perf_counter() - start:.0f} s\n", flush=True
    )
    copies = {name: copy(hf, folder / "copy", sync) for name, sync in (("copy", False), ("copy, synced", True))}
    runs = {
        "hf to orbax": convert(f"hf:{hf}", f"orbax:{orbax}", folder / "log"),
        "orbax to hf": convert(f"orbax:{orbax}", f"hf:{back}", folder / "log"),
    }
    wrong = differences(hf, back)
    if wrong:
        raise SystemExit(f"{len(wrong)} tensors came back changed: {wrong[:5]}")

    print(
        f"{'':<14}{'seconds':>8}{'GB/s':>7}{'of copy':>9}{'of synced':>11}{'CPU s':>7}{'peak MiB':>10}{'anonymous':>11}"
    )
    for name, seconds in copies.items():
        print(f"{name:<14}{seconds:>8.1f}{nbytes / seconds / 1e9:>7.2f}")
    for name, run in runs.items():
        plain, synced = (f"{seconds / run.seconds:.0%}" for seconds in copies.values())
        print(
            f"{name:<14}{run.seconds:>8.1f}{nbytes / run.seconds / 1e9:>7.2f}{plain:>9}{synced:>11}{run.cpu:>7.1f}"
            f"{run.peak / 2**20:>10.0f}{run.anonymous / 2**20:>11.0f}"
        )
    print(f"\nall {count} tensors came back byte for byte")
    return {
        "benchmark": "convert",
        "tensors": count,
        "bytes": nbytes,
        "seconds": copies | {name: run.seconds for name, run in runs.items()},
        "cpu_seconds": {name: run.cpu for name, run in runs.items()},
        "peak_bytes": {name: run.peak for name, run in runs.items()},
    }


def main() -> None:
    """Measures in a temporary folder and removes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()))
    parser.add_argument("--scale", type=int, default=1)
    arguments = parser.parse_args()
    needed = 3.1 * 2 * sum(math.prod(shape) for shape in tensor_shapes(architecture(arguments.scale)).values())
    if shutil.disk_usage(arguments.dir).free < needed:
        raise SystemExit(f"{arguments.dir} has no {needed / 1e9:.0f} GB free; name another folder with --dir")
    with tempfile.TemporaryDirectory(dir=arguments.dir, prefix="convert-") as folder:
        result = measure(pathlib.Path(folder), arguments.scale)
    print(json.dumps(result))
    worst = max(result["peak_bytes"].values())
    if worst > LIMIT_BYTES:
        raise SystemExit(f"a conversion took {worst / 2**30:.2f} GiB of memory, more than {LIMIT_BYTES / 2**30:.0f}")


if __name__ == "__main__":
    main()
