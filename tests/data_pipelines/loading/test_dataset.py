"""Datasets: records by number from JSON lines and from prepared folders, and the errors of both."""

import json
import re

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipelines.loading.dataset import open_dataset
from data_pipelines.media.archive import ArchiveError, media_shard, record_shard
from data_pipelines.records import read as record_lib
from data_pipelines.records.problems import RecordError


def video(identity, **changes):
    message = {"style": "user_qa", "user": "What is this?", "answer": "A street."}
    return {"id": identity, "video": "bikes.mp4", "messages": [message], **changes}


def entries(path, *found):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for entry in found:
        writer.write(entry)
    writer.close()


def test_json_lines_are_read_by_number(write_records):
    path = write_records(video("a"), video("b", clip=[1, 2]))
    got = open_dataset(str(path))
    assert (len(got), got.written_by_hand) == (2, True)
    assert [got.record(i).where for i in (1, 0)] == [f"{path}:2: record 'b'", f"{path}:1: record 'a'"]
    assert got.record(1).media[0].start == 1


def test_a_medium_is_probed_once(write_records, monkeypatch):
    calls = []
    probed = record_lib.open_video
    monkeypatch.setattr(record_lib, "open_video", lambda *args: calls.append(args) or probed(*args))
    dataset = open_dataset(str(write_records(video("a"))))
    assert dataset.record(0) is dataset.record(0)
    assert len(calls) == 1


def test_a_bad_line_costs_its_record_only(write_records, folder):
    path = write_records(video("ok"), video("ok", clip=[1, 2]), video("far", video="none.mp4"), video("last"))
    path.write_bytes(path.read_bytes() + b"\n{broken\n")
    dataset = open_dataset(str(path))
    assert len(dataset) == 5
    found = {}
    for index in range(5):
        try:
            dataset.record(index)
        except RecordError as error:
            found[index] = error
    assert {index: error.reason for index, error in found.items()} == {
        1: "bad_record",
        2: "no_file",
        4: "bad_record",
    }
    assert str(found[1]) == f"{path}:2: record 'ok': the id is taken by line 1"
    assert str(found[2]) == f"{path}:3: record 'far': {folder / 'none.mp4'}: no such file"
    assert str(found[4]).startswith(f"{path}:6: not a JSON object")


@pytest.mark.parametrize(
    ("layout", "numbers"),
    [
        ("{}\n{}\n", (1, 2)),
        ("{}\n{}", (1, 2)),
        ("{}\r\n{}\r\n\r\n", (1, 2)),
        ("\ufeff{}\n{}\n", (1, 2)),
        ("\n{}\n\n \t\n{}\n  \n\n", (2, 5)),
    ],
)
def test_blank_lines_are_no_records_and_count_as_lines(folder, layout, numbers):
    path = folder / "records.jsonl"
    path.write_bytes(layout.format(json.dumps(video("a")), json.dumps(video("b"))).encode())
    dataset = open_dataset(str(path))
    assert [dataset.record(i).where for i in range(len(dataset))] == [
        f"{path}:{number}: record '{name}'" for number, name in zip(numbers, "ab", strict=True)
    ]


@pytest.mark.parametrize("text", ["", "\n", " \r\n\n"])
def test_a_file_of_blank_lines_has_no_records(folder, text):
    (folder / "records.jsonl").write_text(text)
    with pytest.raises(RecordError, match="holds no records"):
        open_dataset(str(folder / "records.jsonl"))


@pytest.fixture
def prepared(folder):
    """A prepared folder of three records in two shards, one medium in an archive."""
    entries(folder / media_shard(0), b"-", (folder / "bikes.mp4").read_bytes())
    inside = {"at": f"{media_shard(0)}#1", "width": 640, "height": 272, "duration": 10.0}
    lines = [
        json.dumps(one).encode()
        for one in (video("a"), video("b", video=f"{media_shard(0)}#1"), video("c", video=inside))
    ]
    entries(folder / record_shard(0, 2), *lines[:2])
    entries(folder / record_shard(1, 2), *lines[2:])
    (folder / "info.json").write_text(json.dumps({"examples": 3}))
    return folder


def test_a_prepared_folder_is_read_by_number(prepared):
    got = open_dataset(str(prepared))
    assert (len(got), got.written_by_hand) == (3, False)
    records = [got.record(i) for i in range(3)]
    assert [one.where for one in records] == [f"{prepared}[{i}]: record '{name}'" for i, name in enumerate("abc")]
    assert {one.media[0].size for one in records} == {(640, 272)}
    assert {round(one.media[0].duration, 3) for one in records} == {10.0}
    assert records[2].media[0].location.source().read() == (prepared / "bikes.mp4").read_bytes()


def test_a_folder_that_is_not_whole_is_refused(prepared):
    (prepared / record_shard(1, 2)).unlink()
    with pytest.raises(ArchiveError, match=record_shard(1, 2)):
        open_dataset(str(prepared))


def test_a_missing_or_empty_file_is_named(folder):
    with pytest.raises(
        FileNotFoundError, match=re.escape(f"{folder / 'none.jsonl'}: no such records file or prepared")
    ):
        open_dataset(str(folder / "none.jsonl"))
    (folder / "empty.jsonl").write_text("")
    with pytest.raises(RecordError, match=r"empty.jsonl: holds no records") as caught:
        open_dataset(str(folder / "empty.jsonl"))
    assert caught.value.reason == "bad_record"
