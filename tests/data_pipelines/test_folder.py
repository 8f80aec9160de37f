"""Through TFDS to a prepared folder, and what is left out on the way."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from data_pipelines.__main__ import ENTRIES, main, prepare
from data_pipelines.entry import Skipped
from data_pipelines.folder import PrepareError, write_folder
from molmo2_jax.data.archive import Records, read_entry
from molmo2_jax.data.config import DatasetConfig
from molmo2_jax.data.dataset import open_dataset
from molmo2_jax.data.example import describe

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "data_pipelines" / "samples"
READY = ROOT / "experiments" / "samples"
TABLES = {"molmo2_video_point_0_5": "molmo2_video_point", "molmo2_cap": "molmo2_cap", "pixmo_points": "pixmo_points"}


@pytest.mark.parametrize("name", TABLES)
def test_the_samples_are_what_the_builders_make_through_tfds(tmp_path, name):
    table, media = SAMPLES / f"{TABLES[name]}.jsonl", SAMPLES / "media"
    info = prepare(ENTRIES[name], table, media, tmp_path / "made", tmp_path / "tfds")
    assert "tensorflow" not in sys.modules
    assert info == json.loads((READY / name / "info.json").read_text())
    assert list(Records(tmp_path / "made")) == list(Records(READY / name))
    for entry in range(info["media"]):
        at = "media-00000.array_record"
        assert read_entry(tmp_path / "made" / at, entry) == read_entry(READY / name / at, entry)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "tfds"]


@pytest.mark.parametrize("name", TABLES)
def test_the_samples_are_read_and_decoded_as_training_does(tokenizer, data_config, name):
    dataset = open_dataset(str(READY / name))
    cfg = data_config(prompts="templates", style_prefix="demo_or_style", seq_len=4096)
    for item in range(len(dataset)):
        settings = DatasetConfig("", None, 1.0, None, 0.0)
        (example,) = describe(dataset.record(item), name, settings, tokenizer, cfg, np.random.default_rng(item))
        views = [view for plan in example.media for view in plan.views()]
        assert len(views) == example.n_crops > 0 and example.dropped == 0
        assert example.lay_out(tokenizer, 4.0).loss_weights.any()


def draft(name, **media):
    return {"id": name, "messages": [{"style": "user_qa", "question": "What?", "answer": "That."}], **media}


def test_what_cannot_be_used_is_counted_and_left_out(tmp_path):
    media = tmp_path / "media"
    shutil.copytree(SAMPLES / "media", media)
    (media / "cut.mp4").write_bytes((media / "street_car_2fps.mp4").read_bytes()[:9000])
    (media / "empty.jpg").write_bytes(b"")
    drafts = [
        draft("good", video="street_car_2fps.mp4"),
        draft("again", video="street_car_2fps.mp4", clip=[0.5, 2.0]),
        draft("cut", video="cut.mp4"),
        draft("cut too", video="cut.mp4"),
        draft("empty", image="empty.jpg"),
        draft("gone", image="gone.jpg"),
        draft("climbing", image="../media/empty.jpg"),
        draft("late", video="street_car_2fps.mp4", clip=[1.0, 99.0]),
        draft("text"),
    ]
    skipped = Skipped({"earlier": 2})
    info = write_folder(ENTRIES["molmo2_cap"], drafts, media, tmp_path / "out", skipped)
    assert (info["examples"], info["media"]) == (3, 1)  # one medium, stored once
    left_out = dict(info["left_out"])
    assert (left_out.pop("earlier"), left_out.pop("empty_file"), left_out.pop("no_file")) == (2, 1, 1)
    assert left_out.pop("bad_time") == 1 and left_out.pop("bad_record") == 1
    assert list(left_out.values()) == [2]  # the cut one, by whatever name its damage has
    assert [json.loads(line)["id"] for line in Records(tmp_path / "out")] == ["good", "again", "text"]


def test_nothing_is_left_behind_and_nothing_overwritten(tmp_path):
    with pytest.raises(PrepareError, match="no record is left"):
        write_folder(ENTRIES["molmo2_cap"], [draft("x", image="gone.jpg")], tmp_path, tmp_path / "out", Skipped())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(PrepareError, match="is there already"):
        write_folder(ENTRIES["molmo2_cap"], [draft("x")], tmp_path, tmp_path / "out", Skipped())


def test_the_command_reads_parquet_and_names_mistakes(tmp_path, capsys):
    rows = [json.loads(line) for line in (SAMPLES / "molmo2_cap.jsonl").read_text().splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    command = ["prepare", "molmo2_cap", f"--media={SAMPLES / 'media'}", f"--out={tmp_path / 'out'}"]
    assert main([*command, f"--rows={tmp_path / 'train.parquet'}"]) == 0
    assert '"examples": 1' in capsys.readouterr().out
    assert list(Records(tmp_path / "out")) == list(Records(READY / "molmo2_cap"))
    for flag, message in (
        (f"--rows={tmp_path / 'gone.jsonl'}", "no such table"),
        (f"--rows={tmp_path / 'train.parquet'}", "there already"),
    ):
        assert main([*command, flag]) == 1
        assert message in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "pixmo_points " in capsys.readouterr().out
