"""From published rows through TFDS to a prepared folder, and what is left out on the way."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from data_pipelines.__main__ import main
from data_pipelines.datasets.catalog import ENTRIES
from data_pipelines.datasets.core import tables
from data_pipelines.datasets.core.entry import PrepareError, Skipped
from data_pipelines.datasets.core.folder import write_folder
from data_pipelines.datasets.core.prepare import prepare
from data_pipelines.loading.dataset import open_dataset
from data_pipelines.media.archive import Records, read_entry
from data_pipelines.packing.fit import fit_to_row
from data_pipelines.records.annotations import AnyOf, Choice, InlinePoints, Message, Points, Text, Tracks
from data_pipelines.records.read import read_record
from data_pipelines.records.write import Draft, NamedMedium, write_draft, write_record
from data_pipelines.sequence.example import describe
from data_pipelines.text.points import Point
from data_pipelines.text.tracks import TrackFrame

ROOT = Path(__file__).parents[4]
SAMPLES = ROOT / "data_pipelines" / "datasets" / "samples"
READY = ROOT / "experiments" / "samples"
TABLES = {
    "vixmo_points_minmax_0_5": "molmo2_video_point",
    "vixmo3_top_level_captions_min_3": "molmo2_cap",
    "pixmo_points_train": "pixmo_points",
}
CAPTIONS = ENTRIES["vixmo3_top_level_captions_min_3"]


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
    cfg = data_config(templates=True, style_prefix="demo_or_style", seq_len=4096)
    view, prompts, weights = cfg.view, cfg.prompts, cfg.token_weights
    source = {"dataset": name, "high_res": 0.0, "dataset_weight": None}
    for item in range(len(dataset)):
        rng = np.random.default_rng(item)
        whole = describe(dataset.record(item), rng, tokenizer, view, prompts, weights, **source)
        (example,) = fit_to_row(whole, cfg.row, 1, "drop")
        crops = [crop for plan in example.media for crop in plan.crops()]
        assert len(crops) == example.n_crops > 0 and example.dropped == 0
        assert example.lay_out(tokenizer, 4.0).loss_weights.any()


IMAGE = "05396995cee98fc575e5a4ca474620265dbcaf014320edaa8c1f38da205a9cff"
VIDEO = NamedMedium("street_car_2fps.mp4")
QUESTION = Message("user_qa", None, "What?", None, Text(("That.",), None), 1.0, ())


def draft(name, *images, **keys):
    return write_draft(Draft(id=name, images=images, **{"messages": (QUESTION,)} | keys))


def test_what_cannot_be_used_is_counted_and_left_out(tmp_path):
    media = tmp_path / "media"
    shutil.copytree(SAMPLES / "media", media)
    (media / "cut.mp4").write_bytes((media / "street_car_2fps.mp4").read_bytes()[:9000])
    (media / "empty.jpg").write_bytes(b"")
    drafts = [
        draft("good", video=VIDEO),
        draft("again", video=VIDEO, clip=(0.5, 2.0)),
        draft("cut", video=NamedMedium("cut.mp4")),
        draft("cut too", video=NamedMedium("cut.mp4")),
        draft("empty", NamedMedium("empty.jpg")),
        draft("gone", NamedMedium("gone.jpg")),
        draft("climbing", NamedMedium("../media/empty.jpg")),
        draft("another", NamedMedium(IMAGE, sha256="0" * 64)),
        draft("late", video=VIDEO, clip=(1.0, 99.0)),
        draft("text"),
    ]
    skipped = Skipped({"earlier": 2})
    info = write_folder(CAPTIONS, drafts, media, tmp_path / "out", skipped)
    assert (info["examples"], info["media"]) == (3, 1)  # one medium, stored once
    skipped = dict(info["skipped"])
    assert (skipped.pop("earlier"), skipped.pop("empty_file"), skipped.pop("no_file")) == (2, 1, 1)
    assert skipped.pop("wrong_file") == 1
    assert skipped.pop("bad_time") == 1 and skipped.pop("bad_record") == 1
    assert list(skipped.values()) == [2]  # the two of the cut file, whatever reason its damage has
    assert [json.loads(line)["id"] for line in Records(tmp_path / "out")] == ["good", "again", "text"]


def message(style, answer, then=(), **changes):
    return Message(style, *({"user": None, "question": None, "about": None} | changes).values(), answer, 1.0, then)


def test_drafts_are_read_from_the_folder_with_the_annotations_they_had(tmp_path):
    times = [(0.1 + n * 0.5) - 0.1 for n in range(4)]  # of a clip that starts at 0.1 s: no multiples of 0.5
    places = tuple(Point(time, 17.2 / 100, 1 / 3) for time in times)
    points = Points("car", places, "a car", None)
    tracks = Tracks("car", tuple(TrackFrame(time, {"7": (time / 3, 0.1)}) for time in times), 2)
    choice = Choice(("a car", "a bus"), (0, 1), labelled=False)
    of_video = (
        AnyOf((message("video_point", points, (QUESTION,)), message("video_point", Points("bus", (), None, "none")))),
        message("video_point_track_per_frame", tracks),
        message("video_multiple_choice", choice, question="Which?"),
        message("video_clip_caption_start_end", Text(("a", "b"), "so"), about=(times[1], times[2])),
    )
    photo, other = sorted(path.name for path in (SAMPLES / "media").iterdir() if not path.suffix)[:2]
    inline = InlinePoints("the <|POINT|>", (Points("car", (Point(1, 0.3, 0.7),), None, None),))
    two = Points("car", (Point(2, 0.1, 0.7), Point(1, 1.0, 0.0)), None, None)
    made = [
        Draft(
            id="v", video=VIDEO, clip=(0.1, 2.3), frame_rates=(2.0,), subtitles=((-0.1, 0.7, "Hi."),), messages=of_video
        ),
        Draft(id="i", images=(NamedMedium(photo),), messages=(message("user_qa", inline, user="Where?"),)),
        Draft(
            id="s", images=(NamedMedium(photo), NamedMedium(other)), messages=(message("multi_image_pointing", two),)
        ),
    ]
    info = write_folder(CAPTIONS, map(write_draft, made), SAMPLES / "media", tmp_path / "out", Skipped())
    assert (info["examples"], info["media"], info["skipped"]) == (3, 3, {})
    for made_one, line in zip(made, Records(tmp_path / "out"), strict=True):
        record = read_record(line, str(tmp_path / "out"), "out[0]")
        assert (record.id, record.subtitles, record.messages) == (made_one.id, made_one.subtitles, made_one.messages)
        assert read_record(write_record(record), str(tmp_path / "out"), "out[0]") == record
        for medium, named in zip(record.media, made_one.images or (VIDEO,), strict=True):
            assert medium.location.source().read() == (SAMPLES / "media" / named.name).read_bytes()


def test_a_clip_may_outlast_its_file_by_a_frame_and_no_more(tmp_path):
    drafts = [draft(f"to {end}", video=VIDEO, clip=(0.5, end)) for end in (2.0, 2.9, 3.1)]
    info = write_folder(CAPTIONS, drafts, SAMPLES / "media", tmp_path / "out", Skipped())
    clips = [json.loads(line)["clip"] for line in Records(tmp_path / "out")]
    assert clips == [[0.5, 2.0], [0.5, 2.5]] and info["skipped"] == {"bad_time": 1}


def test_nothing_is_left_behind_and_nothing_overwritten(tmp_path):
    with pytest.raises(PrepareError, match="no record is left"):
        write_folder(CAPTIONS, [draft("x", NamedMedium("gone.jpg"))], tmp_path, tmp_path / "out", Skipped())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(PrepareError, match="already exists"):
        write_folder(CAPTIONS, [draft("x")], tmp_path, tmp_path / "out", Skipped())


def command(dataset, out, *flags):
    return main(["prepare", dataset, f"--media={SAMPLES / 'media'}", f"--out={out}", *map(str, flags)])


def test_the_command_reads_parquet_and_names_mistakes(tmp_path, capsys):
    rows = [json.loads(line) for line in (SAMPLES / "molmo2_cap.jsonl").read_text().splitlines()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert command(CAPTIONS.name, tmp_path / "out", "--rows", tmp_path / "rows.parquet") == 0
    assert '"examples": 1' in capsys.readouterr().out
    assert list(Records(tmp_path / "out")) == list(Records(READY / CAPTIONS.name))
    for out, table, message in (
        ("new", "gone.jsonl", "no such table"),
        ("out", "rows.parquet", "already exists"),
    ):
        assert command(CAPTIONS.name, tmp_path / out, "--rows", tmp_path / table) == 1
        assert message in capsys.readouterr().err
    assert main(["list"]) == 0
    assert "pixmo_points_train " in capsys.readouterr().out


def test_a_table_without_a_usable_row_gives_a_message(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text((SAMPLES / "molmo2_cap.jsonl").read_text().splitlines()[1])
    assert command(CAPTIONS.name, tmp_path / "out", "--rows", tmp_path / "rows.jsonl") == 1
    assert "no record is left; left out: {'score below 3': 1}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_tfds_built_before_is_not_used(tmp_path, capsys):
    flags = ("--rows", SAMPLES / "molmo2_cap.jsonl", "--tfds", tmp_path / "tfds")
    assert command(CAPTIONS.name, tmp_path / "one", *flags) == 0
    assert command(CAPTIONS.name, tmp_path / "two", *flags) == 1
    assert "tfds/vixmo3_top_level_captions_min_3/2.0.0 already exists" in capsys.readouterr().err


def test_the_evaluation_set_is_held_out_or_none_is_named(tmp_path, capsys):
    flags = ("--rows", SAMPLES / "pixmo_points.jsonl")
    assert command("pixmo_points_train", tmp_path / "out", *flags) == 1
    assert "allenai/pixmo-points-eval with --held-out" in capsys.readouterr().err
    (tmp_path / "eval").mkdir()
    table = pyarrow.Table.from_pylist([{"image_url": "https://images.example.org/street-1.jpg", "label": "car"}])
    parquet.write_table(table, tmp_path / "eval" / "test-00000-of-00001.parquet")
    assert command("pixmo_points_train", tmp_path / "out", *flags, "--held-out", tmp_path / "eval") == 0
    assert '"held out for evaluation": 3' in capsys.readouterr().out
    assert len(Records(tmp_path / "out")) == 4
    assert command("pixmo_points_train", tmp_path / "two", *flags, "--held-out", SAMPLES / "molmo2_cap.jsonl") == 1
    assert "no table with a column image_url" in capsys.readouterr().err
    assert command(CAPTIONS.name, tmp_path / "two", *flags, "--held-out", "none") == 1
    assert "has no evaluation set" in capsys.readouterr().err


def test_datasets_are_listed_without_the_libraries_that_prepare_them():
    hide = "import sys\nfor name in ('tensorflow_datasets', 'pyarrow', 'jax'): sys.modules[name] = None\n"
    code = f"{hide}from data_pipelines.__main__ import main\nsys.exit(main(['list']))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, len(result.stdout.splitlines())) == (0, len(ENTRIES)), result.stderr
