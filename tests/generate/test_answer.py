"""Answering from a real checkpoint of a small random model with the real tokenizer."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from molmo2_jax.data.example import describe_prompt
from molmo2_jax.data.failure import MediaError
from molmo2_jax.data.media import Location, open_video
from molmo2_jax.generate import answer as answering
from molmo2_jax.generate.answer import Answerer
from molmo2_jax.train.config import ConfigError
from tests.generate.saved_run import save_run
from tests.models.small import small

# One program for all tests. Cold: the scores of a random model are small beside the noise of 151,936 draws.
SAMPLING = {"max_new": 12, "temperature": 0.2, "top_p": 1.0, "seed": 0}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, data_config):
    """A workdir as training leaves it: step 1 of a model of two kv heads that knows all of Qwen's tokens."""
    directory = tmp_path_factory.mktemp("run")
    save_run(directory, small(vocab=151_936), data_config(seq_len=192, crops=1, pooled=81, max_frames=1))
    return directory


@pytest.fixture(scope="module")
def answerer(workdir):
    return Answerer(workdir, jax.devices()[:2])


@pytest.fixture(scope="module")
def prompt(answerer, street_video):
    media = (open_video(Location.of(street_video), (0.0, 0.1)),)
    return describe_prompt("Point to the cars.", media, answerer.tok, answerer.data)


def test_what_is_shown_as_it_comes_is_the_answer(answerer, prompt):
    shown = []
    streamed = answerer.answer(prompt, **SAMPLING, on_text=shown.append)
    assert "".join(shown) == streamed and all(shown)
    assert streamed == answerer.answer(prompt, **SAMPLING)
    assert len(streamed) > 12  # random tokens, most of them longer than a letter


def test_the_prompt_and_its_video_are_what_is_answered(answerer, prompt, street_video):
    def ask(text, clip):
        media = (open_video(Location.of(street_video), clip),)
        return answerer.answer(describe_prompt(text, media, answerer.tok, answerer.data), **SAMPLING)

    first = ask("Point to the cars.", (0.0, 0.1))
    assert first == answerer.answer(prompt, **SAMPLING)
    assert first != ask("Point to the taxi.", (0.0, 0.1))
    assert first != ask("Point to the cars.", (8.0, 8.1))


def test_the_seed_decides_what_is_drawn(answerer, prompt):
    first = answerer.answer(prompt, **SAMPLING)
    assert first == answerer.answer(prompt, **SAMPLING)
    assert first != answerer.answer(prompt, **SAMPLING | {"seed": 1})


def test_media_that_cannot_be_decoded_are_named(answerer, street_video, tmp_path):
    path = tmp_path / "bikes.mp4"
    shutil.copy(street_video, path)
    media = (open_video(Location.of(path), None),)
    prompt = describe_prompt("What is this?", media, answerer.tok, answerer.data)
    path.unlink()
    with pytest.raises(MediaError, match=r"bikes\.mp4"):
        answerer.answer(prompt, **SAMPLING)


def test_more_devices_than_heads_are_refused_by_number(workdir):
    with pytest.raises(ConfigError, match=r"small on 8 devices: llm heads = 4 cannot be cut 8 ways"):
        Answerer(workdir)
    with pytest.raises(ConfigError, match=r"small on 4 devices: llm kv_heads = 2 cannot be cut 4 ways"):
        Answerer(workdir, jax.devices()[:4])


def script(monkeypatch, tokens, max_new):
    """Has the model say `tokens` and then EOS; returns the list of how many tokens each step was asked for."""
    eos, asked = 151_645, []
    said = np.int32([*tokens, *[eos] * max_new])[None, :max_new]

    def state(count):
        count = min(count, max_new, len(tokens) + 1)
        return SimpleNamespace(count=count, done_B=said[:, count - 1] == eos, out_BT=said)

    def step(model, before, steps, **_):
        asked.append(steps)
        return state(before.count + steps)

    monkeypatch.setattr(answering, "prefill", lambda *_, **__: state(1))
    monkeypatch.setattr(answering, "decode", step)
    return asked


TEXT = "Two 🦓 — 你好! " * 5


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 31])
def test_the_answer_ends_before_eos(answerer, prompt, monkeypatch, length):
    tokens = answerer.tok.encode(TEXT)[:length]
    asked = script(monkeypatch, tokens, max_new=100)
    shown = []
    found = answerer.answer(prompt, **SAMPLING | {"max_new": 100}, on_text=shown.append)
    assert found == "".join(shown) == answerer.tok.decode(tokens)
    assert not any(piece.endswith("\N{REPLACEMENT CHARACTER}") for piece in shown[:-1])
    assert set(asked) <= {8} and len(asked) == -(-length // 8)


def test_the_answer_ends_where_its_room_does(answerer, prompt, monkeypatch):
    tokens = answerer.tok.encode(TEXT)
    asked = script(monkeypatch, tokens, max_new=10)
    assert answerer.answer(prompt, **SAMPLING | {"max_new": 10}) == answerer.tok.decode(tokens[:10])
    assert asked == [10]
