"""Published tables: files in folders, the Hub (a function stands in for it), and files that are no tables."""

import json

import huggingface_hub
import pyarrow
import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from pyarrow import parquet

from data_pipelines.datasets.core import tables
from data_pipelines.datasets.core.entry import PrepareError

FILES = {  # as published: one folder per config, several files per split
    "object/train-00000-of-00002.parquet": [{"id": 0}, {"id": 1}],
    "object/train-00001-of-00002.parquet": [{"id": 2}],
    "spatial reference/train-00000-of-00001.parquet": [{"id": 3}],
    "object/val-00000-of-00001.parquet": [{"id": 4}],
    "README.parquet": [{"id": 5}],
}


@pytest.fixture
def folder(tmp_path):
    for name, rows in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    return tmp_path


def ids(*sources, split="train"):
    return [row["id"] for row in tables.rows([str(source) for source in sources], split)]


def test_a_folder_is_all_files_of_its_split(folder):
    assert ids(folder) == [0, 1, 2, 3]
    assert ids(folder, split="val") == [4]
    assert ids(folder / "README.parquet", folder / "object") == [5, 0, 1, 2]


def test_the_hub_gives_a_folder(folder, monkeypatch):
    asked = []

    def snapshot_download(name, *, repo_type, allow_patterns):
        asked.append((name, repo_type))
        kept = list(huggingface_hub.utils.filter_repo_objects(FILES, allow_patterns=allow_patterns))
        assert kept == [name for name in FILES if "train-" in name]
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert ids("hf:allenai/Molmo2-VideoPoint") == [0, 1, 2, 3]
    assert asked == [("allenai/Molmo2-VideoPoint", "dataset")]


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("no name"), RepositoryNotFoundError])
def test_a_hub_that_does_not_answer_is_named(monkeypatch, error):
    def snapshot_download(*_, **__):
        if isinstance(error, type):  # its constructor needs an HTTP response
            raise error.__new__(error)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(PrepareError, match="hf:allenai/none: cannot be downloaded from the Hub"):
        ids("hf:allenai/none")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"id": 1}\n{"id"', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: a row is a JSON object, not list"),
        ("a.parquet", "PAR1", r"a\.parquet: the table cannot be read"),
        ("a.csv", "id\n1\n", r"a\.csv: a table is \.parquet or \.jsonl"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(PrepareError, match=message):
        ids(tmp_path / name)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.parquet: no such table"):
        ids(tmp_path / "gone.parquet")
    with pytest.raises(FileNotFoundError, match=r"no train-\*\.parquet or train-\*\.jsonl"):
        ids(tmp_path)


def test_rows_of_lines(tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"id": n}) + "\n" for n in range(3)))
    assert ids(tmp_path / "rows.jsonl") == [0, 1, 2]
