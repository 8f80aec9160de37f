"""Through TFDS to a prepared folder, and what is left out on the way."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from data_pipelines import tables
from data_pipelines.__main__ import ENTRIES, main, prepare
from data_pipelines.entry import PrepareError, Skipped
from data_pipelines.folder import write_folder
from molmo2_jax.data.archive import Records, read_entry
from molmo2_jax.data.config import DatasetConfig
from molmo2_jax.data.dataset import open_dataset
from molmo2_jax.data.example import describe

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "data_pipelines" / "samples"
READY = ROOT / "experiments" / "samples"
TABLES = {"molmo2_video_point_0_5": "molmo2_video_point", "molmo2_cap": "molmo2_cap", "pixmo_points": "pixmo_points"}


@pytest.mark.parametrize("name", TABLES)
def test_the_samples_are_what_the_builders_make_through_tfds(tmp_path, monkeypatch, name):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    rows = tables.rows([str(SAMPLES / f"{TABLES[name]}.jsonl")], "train")
    info = prepare(ENTRIES[name], rows, frozenset(), SAMPLES / "media", tmp_path / "made", tmp_path / "tfds")
    assert "tensorflow" not in sys.modules
    assert info == json.loads((READY / name / "info.json").read_text())
    assert list(Records(tmp_path / "made")) == list(Records(READY / name))
    for entry in range(info["media"]):
        at = "media-00000.array_record"
        assert read_entry(tmp_path / "made" / at, entry) == read_entry(READY / name / at, entry)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "temporary", "tfds"]
    assert list((tmp_path / "temporary").iterdir()) == []


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


IMAGE = "05396995cee98fc575e5a4ca474620265dbcaf014320edaa8c1f38da205a9cff"


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
        draft("another", image={"file": IMAGE, "sha256": "0" * 64}),
        draft("late", video="street_car_2fps.mp4", clip=[1.0, 99.0]),
        draft("text"),
    ]
    skipped = Skipped({"earlier": 2})
    info = write_folder(ENTRIES["molmo2_cap"], drafts, media, tmp_path / "out", skipped)
    assert (info["examples"], info["media"]) == (3, 1)  # one medium, stored once
    left_out = dict(info["left_out"])
    assert (left_out.pop("earlier"), left_out.pop("empty_file"), left_out.pop("no_file")) == (2, 1, 1)
    assert left_out.pop("other_file") == 1
    assert left_out.pop("bad_time") == 1 and left_out.pop("bad_record") == 1
    assert list(left_out.values()) == [2]  # the cut one, by whatever name its damage has
    assert [json.loads(line)["id"] for line in Records(tmp_path / "out")] == ["good", "again", "text"]


def test_a_clip_may_outlast_its_file_by_a_frame_and_no_more(tmp_path):
    drafts = [draft(f"to {end}", video="street_car_2fps.mp4", clip=[0.5, end]) for end in (2.0, 2.9, 3.1)]
    info = write_folder(ENTRIES["molmo2_cap"], drafts, SAMPLES / "media", tmp_path / "out", Skipped())
    clips = [json.loads(line)["clip"] for line in Records(tmp_path / "out")]
    assert clips == [[0.5, 2.0], [0.5, 2.5]] and info["left_out"] == {"bad_time": 1}


def test_nothing_is_left_behind_and_nothing_overwritten(tmp_path):
    with pytest.raises(PrepareError, match="no record is left"):
        write_folder(ENTRIES["molmo2_cap"], [draft("x", image="gone.jpg")], tmp_path, tmp_path / "out", Skipped())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(PrepareError, match="is there already"):
        write_folder(ENTRIES["molmo2_cap"], [draft("x")], tmp_path, tmp_path / "out", Skipped())


def command(dataset, out, *flags):
    return main(["prepare", dataset, f"--media={SAMPLES / 'media'}", f"--out={out}", *map(str, flags)])


def test_the_command_reads_parquet_and_names_mistakes(tmp_path, capsys):
    rows = [json.loads(line) for line in (SAMPLES / "molmo2_cap.jsonl").read_text().splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert command("molmo2_cap", tmp_path / "out", "--rows", tmp_path / "rows.parquet") == 0
    assert '"examples": 1' in capsys.readouterr().out
    assert list(Records(tmp_path / "out")) == list(Records(READY / "molmo2_cap"))
    for out, table, message in (
        ("new", "gone.jsonl", "no such table"),
        ("out", "rows.parquet", "there already"),
    ):
        assert command("molmo2_cap", tmp_path / out, "--rows", tmp_path / table) == 1
        assert message in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "pixmo_points " in capsys.readouterr().out


def test_no_record_is_a_message_not_a_stack(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text((SAMPLES / "molmo2_cap.jsonl").read_text().splitlines()[1])
    assert command("molmo2_cap", tmp_path / "out", "--rows", tmp_path / "rows.jsonl") == 1
    assert "no record is left; left out were {'score below 3': 1}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_tfds_built_of_other_rows_is_not_taken(tmp_path, capsys):
    flags = ("--rows", SAMPLES / "molmo2_cap.jsonl", "--tfds", tmp_path / "tfds")
    assert command("molmo2_cap", tmp_path / "one", *flags) == 0
    assert command("molmo2_cap", tmp_path / "two", *flags) == 1
    assert "tfds/molmo2_cap/1.0.0 is there already" in capsys.readouterr().err


def test_the_evaluation_set_is_held_out_or_said_not_to_be(tmp_path, capsys):
    flags = ("--rows", SAMPLES / "pixmo_points.jsonl")
    assert command("pixmo_points", tmp_path / "out", *flags) == 1
    assert "allenai/pixmo-points-eval with --held-out" in capsys.readouterr().err
    (tmp_path / "eval").mkdir()
    table = pyarrow.Table.from_pylist([{"image_url": "https://images.example.org/street-1.jpg", "label": "car"}])
    parquet.write_table(table, tmp_path / "eval" / "test-00000-of-00001.parquet")
    assert command("pixmo_points", tmp_path / "out", *flags, "--held-out", tmp_path / "eval") == 0
    assert '"held out for evaluation": 3' in capsys.readouterr().out
    assert len(Records(tmp_path / "out")) == 4
    assert command("pixmo_points", tmp_path / "two", *flags, "--held-out", SAMPLES / "molmo2_cap.jsonl") == 1
    assert "no table with a column image_url" in capsys.readouterr().err
    assert command("molmo2_cap", tmp_path / "two", *flags, "--held-out", "none") == 1
    assert "has no evaluation set" in capsys.readouterr().err
