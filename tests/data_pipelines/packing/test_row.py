import dataclasses

import numpy as np
import pytest
from PIL import Image

from data_pipelines.config import ConfigError, read_config
from data_pipelines.loading.dataset import open_dataset
from data_pipelines.media import video
from data_pipelines.media.decode_plan import VideoPlan
from data_pipelines.media.location import Location
from data_pipelines.packing.row import build_row, lay_out_row, mask_out_loss
from data_pipelines.packing.schema import FIELDS, RowShape, empty_row, row_dims
from data_pipelines.packing.vision_shards import place

SHAPE = RowShape(seq_len=2048, crops=12, pooled=900)


def message(text):
    return {"style": "user_qa", "user": f"What is {text}?", "answer": f"It is {text}."}


@pytest.fixture
def make(write_records, describe_record, data_config):
    def examples(*records, **changes):
        dataset = open_dataset(str(write_records(*records)))
        config = data_config(image_groups="frame", **changes)
        return [describe_record(dataset.record(i), config, seed=i) for i in range(len(records))]

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


def decoded_crops(example):
    return [crop for plan in example.media for crop in plan.crops()]


def build_sharded(examples, shape, shards, tokenizer):
    """A row with vision shards, with its crops."""
    row = empty_row(shape)
    for placed in lay_out_row(row, examples, place([e.units for e in examples], shape, shards), tokenizer, 4.0):
        row["crops"][placed.crop_slots] = decoded_crops(placed.example)
    return row


def test_a_row_has_the_fields_of_the_schema(examples, build):
    row, failures = build(examples)
    assert failures == []
    assert list(row) == list(FIELDS)
    for name, field in FIELDS.items():
        assert row[name].shape == row_dims(SHAPE, name)
        assert row[name].dtype == field.dtype


def test_examples_are_laid_out_end_to_end(examples, build, tokenizer):
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
        np.testing.assert_array_equal(
            row["crops"][crop : crop + example.n_crops], decoded_crops(example) or row["crops"][:0]
        )
        token, crop, pooled = token + example.n_tokens, crop + example.n_crops, pooled + example.n_pooled
    padding = empty_row(SHAPE)
    assert (crop, pooled) == (5, 405)
    for name, used in [("tokens", token), ("loss_weights", token), ("visible_until", token), ("image_group", token)]:
        np.testing.assert_array_equal(row[name][used:], padding[name][used:])
    assert not row["crops"][crop:].any()
    assert (row["pooling"][pooled:] == -1).all()
    assert (row["visual_slots"][pooled:] == SHAPE.seq_len).all()


def test_image_groups_are_never_shared_between_examples(examples, build):
    row, _ = build(examples)
    ends = np.cumsum([example.n_tokens for example in examples])
    groups = [set(part.tolist()) - {0} for part in np.split(row["image_group"], ends)]
    assert groups == [{1, 2, 3}, set(), {4, 5}, set()]


def test_pooled_features_are_added_to_patch_tokens(examples, build, tokenizer):
    row, _ = build(examples)
    slots = row["visual_slots"][row["visual_slots"] < SHAPE.seq_len]
    np.testing.assert_array_equal(slots, np.flatnonzero(row["tokens"] == tokenizer.special("<im_patch>")))
    # Patches of a visual token are those of its frame.
    frame = row["pooling"][:405] // 729
    np.testing.assert_array_equal(frame, np.repeat(np.arange(5), 81)[:, None].repeat(9, axis=1))


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_in_vision_shards_each_token_pools_what_it_pools_in_one(make, build, tokenizer, folder, shards):
    (frame,) = video.decode_frames(folder / "bikes.mp4", [4.0])
    for name, size in (("wide.png", (900, 300)), ("small.png", (200, 200))):
        Image.fromarray(frame).resize(size).save(folder / name)
    examples = make(
        {"id": "a", "images": ["wide.png", "small.png"], "messages": [message("a")]},
        {"id": "b", "video": "bikes.mp4", "clip": [0, 2], "messages": [message("b")]},
        {"id": "c", "image": "small.png", "messages": [message("c")]},
    )
    total = [sum(getattr(e, name) for e in examples) for name in ("n_tokens", "n_crops", "n_pooled")]
    shape = RowShape(total[0] + 10, 24, 6000)
    row = build_sharded(examples, shape, shards, tokenizer)
    whole, failures = build(examples, shape)
    assert failures == []
    per_crop, per_pooled = shape.crops // shards, shape.pooled // shards
    used = np.flatnonzero(row["visual_slots"] < shape.seq_len)
    assert len(used) == total[2] and (row["pooling"] < per_crop * 729).all()
    assert len(set((used // per_pooled).tolist())) == min(shards, 3) or shards == 4

    def pooled_pixels(row, slots, per_crop, per_pooled):
        """{token: the pixels of the patches it pools}."""
        found = {}
        for g in slots:
            first = (g // per_pooled) * per_crop
            patches = row["pooling"][g]
            patches = patches[patches >= 0]
            pixels = row["crops"][first + patches // 729, patches % 729]
            found[int(row["visual_slots"][g])] = pixels.tobytes()
        return found

    one = pooled_pixels(whole, np.flatnonzero(whole["visual_slots"] < shape.seq_len), shape.crops, shape.pooled)
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
    assert next(plan.crops()).shape == (729, 588)
    row, failures = build([dataclasses.replace(examples[0], media=(plan,))])
    assert len(failures) == 1
    assert not row["crops"].any()
    assert not row["loss_weights"].any()


def test_too_few_crops_are_a_failure(examples, build, monkeypatch):
    original = VideoPlan.crops
    monkeypatch.setattr(VideoPlan, "crops", lambda plan: list(original(plan))[:-1])
    row, failures = build(examples)
    assert ["2 crops decoded, 3 planned" in str(failures[0]), len(failures)] == [True, 2]
    assert row["loss_weights"].any()  # the text is still trained on


def test_an_empty_row_is_padding(build):
    row, failures = build([])
    assert failures == []
    for name, array in empty_row(SHAPE).items():
        np.testing.assert_array_equal(row[name], array)


@pytest.mark.parametrize("changes", [{"crops": 4}, {"pooled": 400}, {"seq_len": 300}])
def test_examples_larger_than_a_row_are_refused(examples, build, changes):
    with pytest.raises(ValueError, match="do not fit a row of"):
        build(examples, dataclasses.replace(SHAPE, **changes))


def test_the_loss_of_one_example_is_masked_out(examples, tokenizer):
    row = empty_row(SHAPE)
    placed = lay_out_row(row, examples, place([e.units for e in examples], SHAPE, 1), tokenizer, 4.0)
    before = {name: array.copy() for name, array in row.items()}
    mask_out_loss(row, placed[1])
    first, last = examples[0].n_tokens, examples[0].n_tokens + examples[1].n_tokens
    assert before["loss_weights"][first:last].any() and not row["loss_weights"][first:last].any()
    before["loss_weights"][first:last] = 0
    for name, array in before.items():
        np.testing.assert_array_equal(row[name], array)


@pytest.mark.parametrize(("key", "least"), [("seq_len", 1), ("crops", 0), ("pooled", 0)])
def test_every_budget_of_a_row_is_checked(key, least):
    smallest = {"seq_len": 1, "crops": 0, "pooled": 0}
    assert read_config(RowShape, smallest, "row") == RowShape(1, 0, 0)
    with pytest.raises(ConfigError, match=f"row.{key} = {least - 1} must be at least {least}"):
        read_config(RowShape, smallest | {key: least - 1}, "row")
