import dataclasses

import numpy as np
import pytest
from PIL import Image

from molmo2_jax.data import video
from molmo2_jax.data.config import DatasetConfig
from molmo2_jax.data.dataset import open_dataset
from molmo2_jax.data.example import describe
from molmo2_jax.data.media import Location
from molmo2_jax.data.plan import VideoPlan
from molmo2_jax.data.row import build_row
from molmo2_jax.data.schema import FIELDS, RowShape, empty_row, row_dims

SHAPE = RowShape(tokens=2048, crops=12, pooled=900, shards=1)


def message(text):
    return {"style": "user_qa", "user": f"What is {text}?", "answer": f"It is {text}."}


@pytest.fixture
def make(write_records, tokenizer, data_config):
    def examples(*records, **changes):
        dataset = open_dataset(str(write_records(*records)))
        settings, rng = DatasetConfig("", None, 1.0, None, 0.0), np.random.default_rng(0)
        cfg = data_config(image_groups="frame", **changes)
        return [e for i in range(len(records)) for e in describe(dataset.record(i), "d", settings, tokenizer, cfg, rng)]

    return examples


@pytest.fixture
def examples(make):
    """A video of 3 frames with two branches, a text, a video of 2 frames."""
    return make(
        {"id": "long", "video": "bikes.mp4", "clip": [0, 1], "messages": [message("this"), message("that")]},
        {"id": "text", "messages": [message("text")]},
        {"id": "short", "video": "bikes.mp4", "clip": [5, 5.5], "messages": [message("it")]},
    )


@pytest.fixture
def build(tokenizer):
    return lambda examples, shape=SHAPE: build_row(examples, shape, tokenizer, 4.0)


def views(example):
    return [view for plan in example.media for view in plan.views()]


def test_a_row_has_the_fields_of_the_schema(examples, build):
    row, failures = build(examples)
    assert failures == []
    assert list(row) == list(FIELDS)
    for name, field in FIELDS.items():
        assert row[name].shape == row_dims(SHAPE, name)
        assert row[name].dtype == field.dtype


def test_examples_are_moved_to_their_place(examples, build, tokenizer):
    row, _ = build(examples)
    token = crop = pooled = 0
    for example in examples:
        laid = example.lay_out(tokenizer, 4.0)
        here, there = slice(token, token + example.n_tokens), slice(pooled, pooled + example.n_pooled)
        for name in ("tokens", "targets", "loss_weights", "positions"):
            np.testing.assert_array_equal(row[name][here], getattr(laid, name))
        np.testing.assert_array_equal(row["visible_until"][here] - token, laid.visible_until)
        np.testing.assert_array_equal(row["visual_slots"][there] - token, laid.visual_slots)
        np.testing.assert_array_equal(row["pooling"][there] - 729 * crop, example.pooling())
        np.testing.assert_array_equal(row["crops"][crop : crop + example.n_crops], views(example) or row["crops"][:0])
        token, crop, pooled = token + example.n_tokens, crop + example.n_crops, pooled + example.n_pooled
    padding = empty_row(SHAPE)
    assert (crop, pooled) == (5, 405)
    for name, used in [("tokens", token), ("loss_weights", token), ("visible_until", token), ("image_group", token)]:
        np.testing.assert_array_equal(row[name][used:], padding[name][used:])
    assert not row["crops"][crop:].any()
    assert (row["pooling"][pooled:] == -1).all()
    assert (row["visual_slots"][pooled:] == SHAPE.tokens).all()


def test_image_groups_are_never_shared_between_examples(examples, build):
    row, _ = build(examples)
    ends = np.cumsum([example.n_tokens for example in examples])
    groups = [set(part.tolist()) - {0} for part in np.split(row["image_group"], ends)]
    assert groups == [{1, 2, 3}, set(), {4, 5}, set()]


def test_pooled_features_land_on_patches(examples, build, tokenizer):
    row, _ = build(examples)
    slots = row["visual_slots"][row["visual_slots"] < SHAPE.tokens]
    np.testing.assert_array_equal(slots, np.flatnonzero(row["tokens"] == tokenizer.special("<im_patch>")))
    # Patches of one visual token come from the frame it stands in.
    frame = row["pooling"][:405] // 729
    np.testing.assert_array_equal(frame, np.repeat(np.arange(5), 81)[:, None].repeat(9, axis=1))


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_in_vision_shards_each_token_pools_what_it_pools_in_one(make, build, folder, shards):
    (frame,) = video.decode_frames(folder / "bikes.mp4", [4.0])
    for name, size in (("wide.png", (900, 300)), ("small.png", (200, 200))):
        Image.fromarray(frame).resize(size).save(folder / name)
    examples = make(
        {"id": "a", "images": ["wide.png", "small.png"], "messages": [message("a")]},
        {"id": "b", "video": "bikes.mp4", "clip": [0, 2], "messages": [message("b")]},
        {"id": "c", "image": "small.png", "messages": [message("c")]},
    )
    total = [sum(getattr(e, name) for e in examples) for name in ("n_tokens", "n_crops", "n_pooled")]
    shape = RowShape(total[0] + 10, 24, 6000, shards)
    row, failures = build(examples, shape)
    whole, _ = build(examples, dataclasses.replace(shape, shards=1))
    assert failures == []
    per_crop, per_pooled = shape.crops // shards, shape.pooled // shards
    used = np.flatnonzero(row["visual_slots"] < shape.tokens)
    assert len(used) == total[2] and (row["pooling"] < per_crop * 729).all()
    assert len(set((used // per_pooled).tolist())) == min(shards, 3) or shards == 4

    def pooled_pixels(row, places, per_crop, per_pooled):
        """{token: the pixels of the patches it pools}."""
        found = {}
        for g in places:
            first = (g // per_pooled) * per_crop
            patches = row["pooling"][g]
            patches = patches[patches >= 0]
            pixels = row["crops"][first + patches // 729, patches % 729]
            found[int(row["visual_slots"][g])] = pixels.tobytes()
        return found

    one = pooled_pixels(whole, np.flatnonzero(whole["visual_slots"] < shape.tokens), shape.crops, shape.pooled)
    assert pooled_pixels(row, used, per_crop, per_pooled) == one
    for name in ("tokens", "targets", "loss_weights", "positions", "visible_until", "image_group"):
        np.testing.assert_array_equal(row[name], whole[name])


def broken(example, path):
    return dataclasses.replace(example, media=(VideoPlan(Location.of(path), example.media[0].times),))


def test_a_medium_that_cannot_be_decoded_costs_its_example_only(examples, build, folder):
    good, _ = build(examples)
    (folder / "bad.mp4").write_bytes(b"no video")
    row, failures = build([broken(examples[0], folder / "bad.mp4"), *examples[1:]])
    (failure,) = failures
    assert "bad.mp4" in str(failure) and failure.reason == "not_media"
    n = examples[0].n_tokens
    assert not row["loss_weights"][:n].any()
    assert not row["crops"][:3].any()
    np.testing.assert_array_equal(row["loss_weights"][n:], good["loss_weights"][n:])
    np.testing.assert_array_equal(row["crops"][3:], good["crops"][3:])
    for name in ("tokens", "targets", "positions", "visible_until", "image_group", "pooling", "visual_slots"):
        np.testing.assert_array_equal(row[name], good[name])


def test_a_video_that_breaks_half_way_leaves_no_frames(examples, build, folder):
    whole = (folder / "bikes.mp4").read_bytes()
    index = whole.index(b"moov")
    # The index at the end stays, most frames are overwritten: a probe finds nothing wrong and the first frame decodes.
    cut = folder / "cut.mp4"
    cut.write_bytes(whole[: index // 3] + bytes(index - 4 - index // 3) + whole[index - 4 :])
    plan = VideoPlan(Location.of(cut), (0.0, 0.5, 9.9))
    assert video.probe(cut) == video.probe(folder / "bikes.mp4")
    assert next(plan.views()).shape == (729, 588)
    row, failures = build([dataclasses.replace(examples[0], media=(plan,))])
    assert len(failures) == 1
    assert not row["crops"].any()
    assert not row["loss_weights"].any()


def test_too_few_views_are_a_failure(examples, build, monkeypatch):
    original = VideoPlan.views
    monkeypatch.setattr(VideoPlan, "views", lambda plan: list(original(plan))[:-1])
    row, failures = build(examples)
    assert ["2 views decoded where 3 were planned" in str(failures[0]), len(failures)] == [True, 2]
    assert row["loss_weights"].any()  # the text still teaches


def test_an_empty_row_is_padding(build):
    row, failures = build([])
    assert failures == []
    for name, array in empty_row(SHAPE).items():
        np.testing.assert_array_equal(row[name], array)


@pytest.mark.parametrize("changes", [{"crops": 4}, {"pooled": 400}, {"tokens": 300}])
def test_examples_larger_than_a_row_are_refused(examples, build, changes):
    with pytest.raises(ValueError, match="do not fit a row of"):
        build(examples, dataclasses.replace(SHAPE, **changes))
