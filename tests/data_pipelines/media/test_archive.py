"""Archives: entries by index, from threads, forks and pickles; errors for every kind of damaged dataset."""

import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipelines.errors import MediaError
from data_pipelines.media import archive
from data_pipelines.media.archive import ArchiveError, Records, media_shard, read_entry, record_shard


def write(path, entries):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for entry in entries:
        writer.write(entry)
    writer.close()


def dataset(folder, shards, **info):
    folder.mkdir()
    for index, entries in enumerate(shards):
        write(folder / record_shard(index, len(shards)), entries)
    (folder / "info.json").write_text(json.dumps({"examples": sum(map(len, shards)), **info}))
    return folder


ENTRIES = [os.urandom(n) for n in (1, 0, 100_000, 300_000, 7)]


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / media_shard(0)
    write(path, ENTRIES)
    return path


def test_entries_are_read_by_index(entries):
    assert [read_entry(entries, index) for index in (4, 0, 3, 1, 2)] == [ENTRIES[i] for i in (4, 0, 3, 1, 2)]
    assert archive.count_entries(entries) == 5


def test_threads_share_a_reader(entries):
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda i: read_entry(entries, i), [i % 5 for i in range(500)]))
    assert read == [ENTRIES[i % 5] for i in range(500)]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_too(entries, start):
    assert read_entry(entries, 2) == ENTRIES[2]  # opens a reader, which a fork inherits
    with multiprocessing.get_context(start).Pool(1) as pool:
        assert pool.starmap(read_entry, [(str(entries), 3), (str(entries), 0)], chunksize=1) == [ENTRIES[3], ENTRIES[0]]


def test_few_files_stay_open(tmp_path):
    archive._open_reader.cache_clear()
    before = len(os.listdir("/proc/self/fd"))
    paths = [tmp_path / media_shard(index) for index in range(archive.OPEN_FILES + 3)]
    for number, path in enumerate(paths):
        write(path, [b"%d" % number])
        assert read_entry(path, 0) == b"%d" % number
    assert len(os.listdir("/proc/self/fd")) - before <= archive.OPEN_FILES
    assert read_entry(paths[0], 0) == b"0"  # its reader was closed


def test_a_replaced_file_is_reopened(tmp_path):
    path = tmp_path / media_shard(0)
    write(path, [b"old"])
    assert read_entry(path, 0) == b"old"
    write(tmp_path / "new", [b"new"])
    os.replace(tmp_path / "new", path)
    assert read_entry(path, 0) == b"new"


def damage(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "cut off, damaged or not an ArrayRecord"),
        (lambda data: data[: len(data) // 2], "cut off, damaged or not an ArrayRecord"),
        (lambda data: b"x" * 100_000, "cut off, damaged or not an ArrayRecord"),
        (lambda data: data[:150_000] + bytes([data[150_000] ^ 255]) + data[150_001:], "#3: the file is damaged"),
    ],
    ids=["empty", "half", "not an ArrayRecord", "one bit"],
)
def test_damage_raises_an_error_that_names_the_file(entries, tmp_path, change, message):
    path = damage(tmp_path / "media-00007.array_record", change(entries.read_bytes()))
    with pytest.raises(MediaError, match="media-00007") as caught:
        read_entry(path, 3)
    assert message in str(caught.value) and caught.value.reason == "unreadable"


@pytest.mark.parametrize("index", [5, -1])
def test_a_missing_entry_raises(entries, index):
    with pytest.raises(MediaError, match=rf"media-00000.array_record#{index}: the file has 5 entries") as caught:
        read_entry(entries, index)
    assert caught.value.reason == "no_file"


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(MediaError, match=r"none\.array_record: no such file"):
        read_entry(tmp_path / "none.array_record", 0)
    with pytest.raises(MediaError, match=r"gs://bucket/a\.array_record: archives are read from local"):
        read_entry("gs://bucket/a.array_record", 0)


def test_records_span_shards(tmp_path):
    records = Records(dataset(tmp_path / "a", [[b"0", b"1"], [b"2"], [b"3", b"4", b"5"]], source="made here"))
    assert len(records) == 6 and list(records) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert records.info["source"] == "made here"
    again = pickle.loads(pickle.dumps(records))
    assert again[4] == b"4"
    for index in (6, -1):
        with pytest.raises(IndexError, match="it has 6"):
            records[index]


def broken(folder, name):
    """A dataset of three shards with one defect."""
    dataset(folder, [[b"0"], [b"1"], [b"2"]])
    shard, info = folder / record_shard(1, 3), folder / "info.json"
    match name:
        case "no info":
            info.unlink()
        case "no JSON":
            info.write_text("{")
        case "no number":
            info.write_text('{"examples": "3"}')
        case "no object":
            info.write_text("[]")
        case "another number":
            info.write_text('{"examples": 4}')
        case "missing shard":
            shard.unlink()
        case "too many shards":
            write(folder / record_shard(0, 1), [b"0"])
        case "cut shard":
            damage(shard, shard.read_bytes()[:1000])
        case "no shards":
            for index in range(3):
                (folder / record_shard(index, 3)).unlink()
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no info", "info.json is missing"),
        ("no JSON", "info.json: not JSON"),
        ("no number", "'examples' must be an integer of at least 1, not '3'"),
        ("no object", "'examples' must be an integer of at least 1, not None"),
        ("another number", "it has 3 records, but"),
        ("missing shard", "records-00001-of-00003"),
        ("too many shards", "records-00001-of-00003"),
        ("cut shard", "records-00001-of-00003.array_record: the file is cut off"),
        ("no shards", "it has no records-"),
    ],
)
def test_a_broken_dataset_raises(tmp_path, name, message):
    with pytest.raises(ArchiveError, match="street") as caught:
        Records(broken(tmp_path / "street", name))
    assert message in str(caught.value)


def test_a_missing_folder_raises(tmp_path):
    with pytest.raises(ArchiveError, match="nowhere: not a prepared dataset"):
        Records(tmp_path / "nowhere")
