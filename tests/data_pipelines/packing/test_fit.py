"""Examples that are larger than a row: split, cut, or refused with their needs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.config import ConfigError, read_config
from data_pipelines.loading.config import LoaderConfig
from data_pipelines.packing.fit import OVERFLOW, fit_to_row
from data_pipelines.packing.schema import RowShape
from data_pipelines.records.problems import RecordError
from data_pipelines.sequence.example import Example
from data_pipelines.sequence.visual_layout import NoVisual
from tests.data_pipelines.sequence.trees import trees

COUNT = {"style": "user_qa", "user": "How many cars?", "answer": "Two cars."}
QUESTIONS = [{**COUNT, "user": f"Question {i}?"} for i in range(4)]
SHAPE = RowShape(seq_len=2048, crops=24, pooled=2048)


@pytest.fixture
def fit(draw):
    """The parts of a described record; `config` goes to `describe`."""

    def parts(*messages, shape=SHAPE, shards=1, overflow="drop", config=None, **media):
        return fit_to_row(draw(*messages, config=config, **media), shape, shards, overflow)

    return parts


def test_an_example_that_fits_stays_as_it_is(draw):
    whole = draw(*QUESTIONS, video="bikes.mp4")
    for overflow in OVERFLOW:
        (part,) = fit_to_row(whole, SHAPE, 1, overflow)
        assert part.turns == whole.turns and part.media is whole.media
        assert (part.dropped, part.part) == (0, 0)


def test_messages_that_do_not_fit_are_dropped_and_counted(draw, tokenizer):
    whole = draw(*QUESTIONS)
    branch = (whole.n_tokens - 1) // 4
    (cut,) = fit_to_row(whole, RowShape(1 + 3 * branch - 1, 0, 0), 1, "drop")
    assert (whole.dropped, cut.dropped) == (0, 2)
    # The order stays, its end is dropped, and the rest is weighted as two branches.
    full, laid = whole.lay_out(tokenizer, 4.0), cut.lay_out(tokenizer, 4.0)
    assert laid.tokens.tolist() == full.tokens[: 1 + 2 * branch].tolist()
    assert laid.loss_weights.max() == pytest.approx(full.loss_weights.max() * np.sqrt(2))


def test_messages_that_do_not_fit_go_to_another_row_with_the_media(fit, tokenizer):
    long = {**COUNT, "user": "Too long? " * 400}
    shape = RowShape(600, 24, 2048)
    parts = fit(*QUESTIONS * 4, long, video="bikes.mp4", clip=[1, 3], shape=shape, overflow="split")
    assert len(parts) > 1
    assert all(part.media == parts[0].media and part.n_tokens <= 600 for part in parts)
    assert [part.part for part in parts] == list(range(len(parts)))
    assert [part.dropped for part in parts] == [1] + [0] * (len(parts) - 1)  # the long one fits no row
    asked = [tokenizer.decode(turn.user) for part in parts for turn in part.turns]
    assert len(asked) == 16 and all(asked.count(one) == 4 for one in set(asked))
    n = len(tokenizer.encode("Two cars.")) + 1
    for part in parts:  # the weights of a part count its own branches
        weights = sorted(set(part.lay_out(tokenizer, 4.0).loss_weights.tolist()) - {0.0})
        np.testing.assert_allclose(weights, [4 / np.sqrt(n) / np.sqrt(len(part.turns))], rtol=1e-6)


@given(trees(), st.integers(10, 60), st.sampled_from(OVERFLOW))
@settings(max_examples=50)
def test_parts_fit_and_every_turn_is_in_one_of_them_or_counted(turns, seq_len, overflow):
    example = Example("d", "x", "a.jsonl:1", NoVisual(), (), tuple(turns), 3, 0)
    parts = fit_to_row(example, RowShape(seq_len, 0, 0), 1, overflow)
    assert all(part.n_tokens <= seq_len for part in parts)
    kept = sum(len(part.turns) for part in parts)
    assert [part.dropped for part in parts] == [3 + len(turns) - kept] + [0] * (len(parts) - 1)
    assert len(parts) == 1 or overflow == "split"


def test_a_record_larger_than_a_row_is_named_with_its_needs(fit):
    with pytest.raises(RecordError) as caught:
        fit(COUNT, video="bikes.mp4", shape=RowShape(seq_len=300, crops=7, pooled=600))
    tokens, crops, pooled = caught.value.problems
    assert "record 'street': needs 7" in tokens
    assert tokens.endswith("tokens for its media and shortest message, a row has seq_len = 300")
    assert crops.endswith(": needs 8 crops, a row has crops = 7")
    assert pooled.endswith(": needs 648 visual tokens, a row has pooled = 600")
    assert caught.value.reason == "too_long"
    with pytest.raises(RecordError) as caught:
        fit(COUNT, video="bikes.mp4", shape=RowShape(2048, 7, 2048))
    assert caught.value.reason == "too_many_crops"


def test_an_image_larger_than_a_vision_shard_is_named(fit, photo):
    shape = RowShape(seq_len=2048, crops=16, pooled=4096)
    with pytest.raises(RecordError, match="images of up to 9 crops do not fit 2 vision shards") as caught:
        fit(COUNT, image="photo.png", shape=shape, shards=2)
    assert caught.value.reason == "too_many_crops"
    assert fit(COUNT, video="bikes.mp4", shape=shape, shards=2)  # frames can be spread


def test_a_row_may_be_exactly_filled(draw):
    whole = draw(COUNT, video="bikes.mp4")
    (part,) = fit_to_row(whole, RowShape(whole.n_tokens, whole.n_crops, whole.n_pooled), 1, "drop")
    assert part.n_tokens == whole.n_tokens
    with pytest.raises(RecordError, match=f"needs {whole.n_tokens} tokens"):
        fit_to_row(whole, RowShape(whole.n_tokens - 1, whole.n_crops, whole.n_pooled), 1, "drop")


def test_an_unknown_way_to_overflow_is_refused():
    tree = {"overflow": "wrap", "max_failure_rate": 0.0, "pool": 4, "workers": 0, "prefetch": 2}
    with pytest.raises(ConfigError, match=r"loader\.overflow = 'wrap' is unknown; known: drop, split"):
        read_config(LoaderConfig, tree, "loader")
