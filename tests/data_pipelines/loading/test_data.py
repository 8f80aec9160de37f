"""Data: the datasets of a config, opened and checked, and the settings that are refused."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.config import ConfigError, read_config
from data_pipelines.loading.config import DataConfig
from data_pipelines.loading.draws import Draw
from data_pipelines.loading.mixture import DatasetConfig, MixtureGroup
from data_pipelines.records.problems import RecordError

ASK = {"style": "text_sft", "user": "Hi.", "answer": "Ho."}


def dataset(source):
    return DatasetConfig(str(source), None, 1.0, None, 0.0)


def test_what_a_config_names_is_opened(open_data, records, tokenizer):
    data = open_data()
    assert (data.lengths, data.rates, data.tok) == ({"records": 5}, {"records": 1.0}, tokenizer)
    assert data.table.splitlines()[2].split() == ["records", "5", "100.000%", "100.000%", "100.000%", "by", "style"]


def test_a_draw_is_described_by_its_epoch_and_seed(open_data):
    data = open_data()

    def users(epoch, seed=0):
        (example,) = data.describe(Draw("records", 0, epoch), seed)
        return tuple(tuple(turn.user) for turn in example.turns)

    assert users(0) == users(0)
    assert len({users(epoch) for epoch in range(8)}) == 2  # its two branches in both orders
    assert len({users(0, seed) for seed in range(8)}) == 2
    assert open_data().describe(Draw("records", 0, 3), 1)[0].id == "clip0"


def test_a_described_example_fits_its_row(open_data):
    for overflow, n in (("drop", 1), ("split", 2)):
        parts = open_data(overflow=overflow, seq_len=290).describe(Draw("records", 0, 0), 0)
        assert len(parts) == n and all(part.n_tokens <= 290 for part in parts)


def test_a_dataset_s_weight_and_resolution_reach_its_examples(open_data, folder, photo, write_records, tokenizer):
    path = write_records({"id": "x", "image": "photo.png", "messages": [ASK]}, name="photo.jsonl")
    sharp = DatasetConfig(str(path), None, 1.0, 0.75, 1.0)
    shape = {"seq_len": 4096, "crops": 32, "pooled": 4096}
    (plain,) = open_data(groups={"g": MixtureGroup(1.0, {"x": dataset(path)})}, **shape).describe(Draw("x", 0, 0), 0)
    (other,) = open_data(groups={"g": MixtureGroup(1.0, {"x": sharp})}, **shape).describe(Draw("x", 0, 0), 0)
    assert (plain.n_crops, other.n_crops) == (9, 25)
    assert set(np.unique(other.lay_out(tokenizer, 4.0).loss_weights)) == {0, 0.75}


def test_a_dataset_that_is_missing(open_data, records):
    mixture = {"all": MixtureGroup(1.0, {"here": dataset(records), "gone": dataset("/gone")})}
    with pytest.raises(RecordError, match="dataset gone of the mixture: /gone: not found; prepare it") as caught:
        open_data(groups=mixture)
    assert caught.value.reason == "no_file"
    data = open_data(groups=mixture, missing="report")
    assert data.rates == {"here": 1.0} and data.lengths == {"here": 5, "gone": None}
    assert data.table.endswith("1 of 2 datasets is missing and not drawn, the others take its share: gone")
    with pytest.raises(RecordError, match="names no dataset that exists"):
        open_data(groups={"all": MixtureGroup(1.0, {"gone": dataset("/gone")})}, missing="report")


def test_bad_records_are_named_before_the_first_element(open_data, write_records, records):
    bad = write_records({"id": "x", "video": "none.mp4", "messages": []}, name="bad.jsonl")
    with pytest.raises(RecordError) as caught:
        open_data(records=[str(bad), records], seq_len=100)
    text = str(caught.value)
    assert "bad.jsonl:1: record 'x': " in text and "none.mp4: no such file" in text
    assert text.count("a row has seq_len = 100") == 3
    with pytest.raises(RecordError, match="names no dataset that exists"):
        open_data(records=[])


def test_as_many_bad_records_as_the_failure_rate_allows(open_data, write_records):
    choice = {"style": "a_okvqa_mc", "question": "Which?", "options": ["a", "a"], "correct": 0}
    good = [{"id": f"t{i}", "messages": [ASK]} for i in range(8)]
    path = str(write_records(*good, {"id": "bad", "messages": [choice]}))
    with pytest.raises(RecordError, match=r"record 'bad': .*twice"):
        open_data(records=[path], max_failure_rate=0.1)
    assert open_data(records=[path], max_failure_rate=0.12).lengths == {"records": 9}


@pytest.mark.parametrize("rows", [(), (1, 1), (-1,), (4,)])
def test_rows_outside_the_batch_are_refused(open_loader, rows):
    with pytest.raises(ValueError, match="rows are distinct indices into the 4 rows of the global batch"):
        open_loader(rows=rows)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("loader", "pool", 0, "must be at least 1"),
        ("loader", "max_failure_rate", 1.5, "must be at least 0, at most 1"),
        ("loader", "max_failure_rate", -0.5, "must be at least 0, at most 1"),
        ("loader", "workers", -1, "must be at least 0"),
        ("loader", "prefetch", 0, "must be at least 1"),
        ("mixture", "missing", "ignore", "is unknown; known: report, stop"),
        ("row", "seq_len", 0, "must be at least 1"),
    ],
)
def test_bad_settings_are_named(data_config, part, key, value, message):
    tree = dataclasses.asdict(data_config())
    assert read_config(DataConfig, tree, "data") == data_config()
    tree[part][key] = value
    with pytest.raises(ConfigError, match=f"data.{part}.{key} = {value!r} {message}"):
        read_config(DataConfig, tree, "data")
