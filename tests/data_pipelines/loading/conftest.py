"""Data and loaders of a few records, closed at the end of a test."""

import threading

import pytest

from data_pipelines.loading.data import Data
from data_pipelines.text.tokenizer import Tokenizer
from tests.data_pipelines.loading.loaders import SMALL


@pytest.fixture
def records(write_records):
    """Five records: three videos with two branches each, two texts."""
    clips = [(0, 1), (2, 3), (6, 7.5)]
    ask = [{"style": "user_qa", "user": f"What is {x}?", "answer": f"It is {x}."} for x in ("this", "that")]
    videos = [
        {"id": f"clip{i}", "video": "bikes.mp4", "clip": list(clip), "messages": ask} for i, clip in enumerate(clips)
    ]
    texts = [{"id": f"text{i}", "messages": [{**ask[0], "user": f"Tell me {i}."}]} for i in range(2)]
    return str(write_records(*videos, *texts))


@pytest.fixture
def small_config(records, data_config):
    """A config of short rows with the five records, or with what `records` or `groups` name."""

    def make(**changes):
        if "groups" not in changes:
            changes = {"records": [records]} | changes
        return data_config(**SMALL | changes)

    return make


@pytest.fixture
def open_data(small_config, tokenizer, monkeypatch):
    """Opens the Data of a config; keywords change the config."""
    # The real tokenizer, which is not read from disk again for each Data.
    monkeypatch.setattr(Tokenizer, "load", lambda source, vocab_size: tokenizer)
    return lambda **changes: Data(small_config(**changes), vocab_size=151_936, vision_shards=1)


@pytest.fixture
def open_loader(open_data):
    """Makes loaders that are closed at the end of the test, which checks that their threads have ended."""
    before = threading.active_count()
    opened = []

    def make(rows=(0, 1), seed=0, streams=4, exchange=None, **changes):
        opened.append(open_data(**changes).loader(seed=seed, rows=rows, streams=streams, exchange=exchange))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    assert threading.active_count() == before
