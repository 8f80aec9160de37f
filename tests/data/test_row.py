import dataclasses

import numpy as np
import pytest

from molmo2_jax.data import video
from molmo2_jax.data.example import VideoPlan, describe
from molmo2_jax.data.record import load_records
from molmo2_jax.data.row import build_row
from molmo2_jax.data.schema import FIELDS, RowShape, empty_row, row_dims

SHAPE = RowShape(tokens=2048, crops=12, pooled=900, shards=1)


def message(text):
    return {"style": "user_qa", "user": f"What is {text}?", "answer": f"It is {text}."}


@pytest.fixture
def examples(write_records, tokenizer, data_config):
    """A video of 3 frames with two branches, a text, a video of 2 frames."""
    path = write_records(
        {"id": "long", "video": "bikes.mp4", "clip": [0, 1], "messages": [message("this"), message("that")]},
        {"id": "text", "messages": [message("text")]},
        {"id": "short", "video": "bikes.mp4", "clip": [5, 5.5], "messages": [message("it")]},
    )
    cfg = data_config(image_groups="frame")
    return [describe(record, tokenizer, cfg, np.random.default_rng(0)) for record in load_records(path)]


def test_a_row_has_the_fields_of_the_schema(examples):
    row, failures = build_row(examples, SHAPE)
    assert failures == []
    assert list(row) == list(FIELDS)
    for name, field in FIELDS.items():
        assert row[name].shape == row_dims(SHAPE, name)
        assert row[name].dtype == field.dtype


def test_examples_are_moved_to_their_place(examples):
    row, _ = build_row(examples, SHAPE)
    token = crop = pooled = 0
    for example in examples:
        here, there = slice(token, token + example.n_tokens), slice(pooled, pooled + example.n_pooled)
        for name in ("tokens", "targets", "loss_weights", "positions"):
            np.testing.assert_array_equal(row[name][here], getattr(example, name))
        np.testing.assert_array_equal(row["visible_until"][here] - token, example.visible_until)
        np.testing.assert_array_equal(row["visual_slots"][there] - token, example.visual_slots)
        np.testing.assert_array_equal(row["pooling"][there] - 729 * crop, example.pooling())
        np.testing.assert_array_equal(
            row["crops"][crop : crop + example.n_crops], list(example.views()) or row["crops"][:0]
        )
        token, crop, pooled = token + example.n_tokens, crop + example.n_crops, pooled + example.n_pooled
    padding = empty_row(SHAPE)
    assert (crop, pooled) == (5, 405)
    for name, used in [("tokens", token), ("loss_weights", token), ("visible_until", token), ("image_group", token)]:
        np.testing.assert_array_equal(row[name][used:], padding[name][used:])
    assert not row["crops"][crop:].any()
    assert (row["pooling"][pooled:] == -1).all()
    assert (row["visual_slots"][pooled:] == SHAPE.tokens).all()


def test_image_groups_are_never_shared_between_examples(examples):
    row, _ = build_row(examples, SHAPE)
    ends = np.cumsum([example.n_tokens for example in examples])
    groups = [set(part.tolist()) - {0} for part in np.split(row["image_group"], ends)]
    assert groups == [{1, 2, 3}, set(), {4, 5}, set()]


def test_pooled_features_land_on_patches(examples, tokenizer):
    row, _ = build_row(examples, SHAPE)
    slots = row["visual_slots"][row["visual_slots"] < SHAPE.tokens]
    np.testing.assert_array_equal(slots, np.flatnonzero(row["tokens"] == tokenizer.special("<im_patch>")))
    # Patches of one visual token come from the frame it stands in.
    frame = row["pooling"][:405] // 729
    np.testing.assert_array_equal(frame, np.repeat(np.arange(5), 81)[:, None].repeat(9, axis=1))


def broken(example, path):
    return dataclasses.replace(example, media=(VideoPlan(path, example.media[0].times),))


def test_a_medium_that_cannot_be_decoded_costs_its_example_only(examples, folder):
    good, _ = build_row(examples, SHAPE)
    (folder / "bad.mp4").write_bytes(b"no video")
    row, failures = build_row([broken(examples[0], folder / "bad.mp4"), *examples[1:]], SHAPE)
    (failure,) = failures
    assert failure.startswith("long: ")
    assert "bad.mp4" in failure
    n = examples[0].n_tokens
    assert not row["loss_weights"][:n].any()
    assert not row["crops"][:3].any()
    np.testing.assert_array_equal(row["loss_weights"][n:], good["loss_weights"][n:])
    np.testing.assert_array_equal(row["crops"][3:], good["crops"][3:])
    for name in ("tokens", "targets", "positions", "visible_until", "image_group", "pooling", "visual_slots"):
        np.testing.assert_array_equal(row[name], good[name])


def test_a_video_that_breaks_half_way_leaves_no_frames(examples, folder):
    whole = (folder / "bikes.mp4").read_bytes()
    index = whole.index(b"moov")
    # The index at the end stays, most frames are overwritten: a probe finds nothing wrong and the first frame decodes.
    cut = folder / "cut.mp4"
    cut.write_bytes(whole[: index // 3] + bytes(index - 4 - index // 3) + whole[index - 4 :])
    plan = VideoPlan(cut, (0.0, 0.5, 9.9))
    assert video.probe(cut) == video.probe(folder / "bikes.mp4")
    assert next(plan.views()).shape == (729, 588)
    row, failures = build_row([dataclasses.replace(examples[0], media=(plan,))], SHAPE)
    assert len(failures) == 1
    assert not row["crops"].any()
    assert not row["loss_weights"].any()


def test_too_few_views_are_a_failure(examples, monkeypatch):
    views = VideoPlan.views
    monkeypatch.setattr(VideoPlan, "views", lambda plan: list(views(plan))[:-1])
    row, failures = build_row(examples, SHAPE)
    assert [failure.partition(": ")[0] for failure in failures] == ["long", "short"]
    assert "2 views decoded where 3 were planned" in failures[0]
    assert row["loss_weights"].any()  # the text still teaches


def test_an_empty_row_is_padding():
    row, failures = build_row([], SHAPE)
    assert failures == []
    for name, array in empty_row(SHAPE).items():
        np.testing.assert_array_equal(row[name], array)


def test_examples_larger_than_a_row_are_refused(examples):
    with pytest.raises(ValueError, match="do not fit a row of"):
        build_row(examples, dataclasses.replace(SHAPE, crops=4))
