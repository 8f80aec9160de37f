"""Answers of a small random model with the real tokenizer, loaded from a checkpoint."""

import itertools
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from data_pipelines.errors import MediaError
from data_pipelines.media.location import Location
from data_pipelines.media.medium import open_video
from data_pipelines.sequence.example import describe_prompt
from molmo2_jax.generate import answer as answering
from molmo2_jax.generate.answer import answer, stream
from molmo2_jax.generate.load import load_model
from molmo2_jax.weights import checkpoint_files
from tests.molmo2_jax.generate.saved_run import save_run
from tests.molmo2_jax.models.small import small

# One program for all tests. Low temperature: the logits of a random model are small next to the noise of 151,936 draws.
SAMPLING = {"max_new": 12, "temperature": 0.2, "top_p": 1.0, "seed": 0}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, data_config):
    """A workdir as training writes it: step 1 of a model with two kv heads and Qwen's vocabulary."""
    directory = tmp_path_factory.mktemp("run")
    save_run(directory, small(vocab=151_936), data_config(seq_len=64, crops=1, pooled=81, max_frames=1))
    return directory


@pytest.fixture(scope="module")
def loaded(workdir):
    return load_model(workdir, jax.devices()[:2])


@pytest.fixture(scope="module")
def prompt(loaded, street_video):
    media = (open_video(Location.of(street_video), (0.0, 0.1)),)
    return describe_prompt("Point to the cars.", media, loaded.tok, loaded.view)


def test_the_pieces_given_to_on_text_are_the_answer(loaded, prompt):
    pieces = []
    streamed = answer(loaded, prompt, **SAMPLING, on_text=pieces.append)
    assert "".join(pieces) == streamed and all(pieces)
    assert streamed == answer(loaded, prompt, **SAMPLING)
    assert len(streamed) > 12  # random tokens, most of them longer than a letter


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_a_stream_gives_the_answer_in_pieces(loaded, prompt, chunk):
    pieces = list(stream(loaded, prompt, **SAMPLING, chunk=chunk))
    assert "".join(pieces) == answer(loaded, prompt, **SAMPLING)
    assert len(pieces) <= 1 + -(-(SAMPLING["max_new"] - 1) // chunk)  # prefill gives one token, each piece `chunk` more
    assert len(pieces) > 1


def test_streams_may_be_read_in_turns_and_left_unfinished(loaded, prompt, street_video):
    other = describe_prompt("Point to the taxi.", prompt_media(street_video, (0.0, 0.1)), loaded.tok, loaded.view)
    with jax.set_mesh(jax.make_mesh((8,), ("mine",))):  # the mesh of the caller, which a stream must not change
        streams = [stream(loaded, each, **SAMPLING, chunk=3) for each in (prompt, other)]
        pieces = list(itertools.zip_longest(*streams, fillvalue=""))
        next(stream(loaded, prompt, **SAMPLING))
        assert jax.sharding.get_mesh().axis_names == ("mine",)
    texts = ["".join(each) for each in zip(*pieces, strict=True)]
    assert texts == [answer(loaded, each, **SAMPLING) for each in (prompt, other)]


def prompt_media(video, clip):
    return (open_video(Location.of(video), clip),)


def test_the_answer_depends_on_the_prompt_and_its_video(loaded, prompt, street_video):
    def ask(text, clip):
        media = prompt_media(street_video, clip)
        return answer(loaded, describe_prompt(text, media, loaded.tok, loaded.view), **SAMPLING)

    first = ask("Point to the cars.", (0.0, 0.1))
    assert first == answer(loaded, prompt, **SAMPLING)
    assert first != ask("Point to the taxi.", (0.0, 0.1))
    assert first != ask("Point to the cars.", (8.0, 8.1))


def test_a_prompt_longer_than_the_training_row_is_answered(loaded, workdir):
    config = checkpoint_files.load_config(checkpoint_files.newest_step(workdir))
    words = " ".join(["How many cars are there?"] * 60)
    example = describe_prompt(words, (), loaded.tok, loaded.view)
    assert example.n_tokens > 4 * config["data"]["row"]["seq_len"]
    first = answer(loaded, example, **SAMPLING)
    assert len(first) > 12
    changed = describe_prompt(words.replace("How", "Why", 1), (), loaded.tok, loaded.view)
    assert answer(loaded, changed, **SAMPLING) != first  # its first word matters


def test_the_seed_decides_what_is_drawn(loaded, prompt):
    first = answer(loaded, prompt, **SAMPLING)
    assert first == answer(loaded, prompt, **SAMPLING)
    assert first != answer(loaded, prompt, **SAMPLING | {"seed": 1})


def test_media_that_cannot_be_decoded_are_named(loaded, street_video, tmp_path):
    path = tmp_path / "bikes.mp4"
    shutil.copy(street_video, path)
    prompt = describe_prompt("What is this?", prompt_media(path, None), loaded.tok, loaded.view)
    path.unlink()
    with pytest.raises(MediaError, match=r"bikes\.mp4"):
        answer(loaded, prompt, **SAMPLING)


def script(monkeypatch, tokens, max_new):
    """Makes the model generate `tokens` and then EOS; returns a list of how many tokens each `decode` is asked for."""
    eos, asked = 151_645, []
    generated = np.int32([*tokens, *[eos] * max_new])[None, :max_new]

    def state(count):
        count = min(count, max_new, len(tokens) + 1)
        return SimpleNamespace(count=count, done_B=generated[:, count - 1] == eos, out_BT=generated)

    def step(model, before, steps, **_):
        asked.append(steps)
        return state(before.count + steps)

    monkeypatch.setattr(answering, "prefill", lambda *_, **__: state(1))
    monkeypatch.setattr(answering, "decode", step)
    return asked


TEXT = "Two 🦓 — 你好! " * 5


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 31])
def test_the_answer_ends_before_eos(loaded, prompt, monkeypatch, length):
    tokens = loaded.tok.encode(TEXT)[:length]
    asked = script(monkeypatch, tokens, max_new=100)
    pieces = []
    found = answer(loaded, prompt, **SAMPLING | {"max_new": 100}, on_text=pieces.append)
    assert found == "".join(pieces) == loaded.tok.decode(tokens)
    assert not any(piece.endswith("\N{REPLACEMENT CHARACTER}") for piece in pieces[:-1])
    assert set(asked) <= {8} and len(asked) == -(-length // 8)


def test_the_answer_ends_after_max_new_tokens(loaded, prompt, monkeypatch):
    tokens = loaded.tok.encode(TEXT)
    asked = script(monkeypatch, tokens, max_new=10)
    assert answer(loaded, prompt, **SAMPLING | {"max_new": 10}) == loaded.tok.decode(tokens[:10])
    assert asked == [10]
