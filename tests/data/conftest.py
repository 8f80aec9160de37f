"""Loaders of a few records, closed at the end of a test."""

import threading

import pytest

from molmo2_jax.data import loader as loader_lib
from tests.data.loading import SMALL


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
def open_loader(records, data_config, tokenizer, monkeypatch):
    """Make loaders that are closed at the end of the test; their threads end with them."""
    # The tokenizer is the real one; it is only not read from disk once per loader.
    monkeypatch.setattr(loader_lib.Tokenizer, "load", lambda source, vocab_size: tokenizer)
    before = threading.active_count()
    opened = []

    def make(rows=(0, 1), seed=0, streams=4, exchange=None, **changes):
        cfg = data_config(**{"records": [records], **SMALL, **changes})
        opened.append(loader_lib.Data(cfg).loader(seed=seed, rows=rows, streams=streams, exchange=exchange))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    assert threading.active_count() == before
