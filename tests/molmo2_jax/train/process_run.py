"""`molmo2 train` on a small model and gray clips, as one process of several: for test_processes.py.

    python -m tests.molmo2_jax.train.process_run WORKDIR MESH [PLAN]

It writes a digest of each row that is put on devices to WORKDIR/rows-INDEX-of-NUMBER.jsonl. With PLAN "hang:3", this
process waits forever before step 3; with "slow", it waits a little before each step.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.cli import train as command
from molmo2_jax.models import config as models
from molmo2_jax.train.config import TrainConfig
from molmo2_jax.weights.checkpoint_files import has_step, newest_step
from tests.data_pipelines.media import videos
from tests.molmo2_jax.train import small_run

STEPS = 60  # never reached: runs are compared by their first steps
SAVED = 20  # steps between checkpoints

_SMALL = models.PRESETS["small"]
_VIT = dataclasses.replace(_SMALL.vit, width=8, heads=1, layers=1, feature_layers=(0,))
models.PRESETS["small_vision"] = dataclasses.replace(_SMALL, name="small_vision", vit=_VIT)


def write_records(folder: Path) -> None:
    """Five clips of two gray frames and three texts."""
    folder.mkdir()
    videos.draw(folder / "grays.mp4", range(0, 5000, 500))
    clips = [{"video": "grays.mp4", "clip": [i + 0.0, i + 0.5]} for i in range(5)]
    answers = [("Gray.", f"Number {i}.") for i in range(5)] + [(f"{i} times {i} is {i * i}.",) for i in range(3)]
    lines = [
        {"id": str(i), "messages": _messages(*texts), **media}
        for i, (texts, media) in enumerate(zip(answers, clips + [{}] * 3, strict=True))
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _messages(*answers: str) -> list[dict]:
    return [{"style": "user_qa", "user": "What is it?", "answer": answer} for answer in answers]


def config(workdir: Path, mesh: dict[str, int]) -> TrainConfig:
    """Two rows, usually of two clips and a text each; the records are next to `workdir`."""
    records = small_run.dataset(workdir.parent / "records" / "records.jsonl") | {"weight": None}
    return small_run.config(
        steps=STEPS,
        checkpoint__every=SAVED,
        mesh={"data": 1, "fsdp": 1, "context": 1, "tensor": 1} | mesh,
        model__preset="small_vision",
        model__context="ring",
        data__mixture__groups={"all": {"rate": 1.0, "datasets": {"records": records}}},
        data__row={"seq_len": 512, "crops": 4, "pooled": 4 * 81},
        data__loader__pool=5,
    )


def digest(row: Mapping[str, np.ndarray]) -> str:
    """A digest of a row's tokens and crops, in whatever order the vision shards have the crops."""
    names = ("tokens", "targets", "loss_weights", "positions", "visible_until", "image_group")
    parts = [row[name].tobytes() for name in names] + sorted(crop.tobytes() for crop in row["crops"])
    return hashlib.sha256(b"".join(parts)).hexdigest()


def train(workdir: Path, mesh: dict[str, int], plan: str = "") -> int:
    """As `molmo2 train` with this config, except that rows are recorded and the plan is followed; the exit status."""
    put_rows, step = sharding.put_rows, int(newest_step(workdir).name) if has_step(workdir) else 0

    def record(rows, mesh):
        nonlocal step
        step += 1
        if plan == f"hang:{step}":
            time.sleep(3600)
        if plan == "slow":
            time.sleep(0.5)
        with (workdir / f"rows-{jax.process_index()}-of-{jax.process_count()}.jsonl").open("a") as file:
            for index, row in enumerate(sharding.local_rows(2, mesh)):
                file.write(json.dumps([step, row, digest({name: x[index] for name, x in rows.items()})]) + "\n")
        return put_rows(rows, mesh)

    workdir.mkdir(exist_ok=True)
    sharding.put_rows = record
    try:
        return command.train(config(workdir, mesh), str(workdir))
    finally:
        sharding.put_rows = put_rows


if __name__ == "__main__":
    sys.exit(train(Path(sys.argv[1]), json.loads(sys.argv[2]), *sys.argv[3:]))
