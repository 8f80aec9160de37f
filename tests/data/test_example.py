import dataclasses

import numpy as np
import pytest
from PIL import Image

from molmo2_jax.data import example as example_lib
from molmo2_jax.data import image, layout, video
from molmo2_jax.data.example import describe, describe_prompt
from molmo2_jax.data.failure import MediaError
from molmo2_jax.data.record import RecordError, load_records

CAR = {
    "style": "video_point",
    "user": "Point to the black car.",
    "answer": {"label": "black car", "points": [{"time": 5.54, "x": 120, "y": 136}]},
}
COUNT = {"style": "video_short_answer", "user": "How many cars?", "answer": "Two cars."}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def load(write_records):
    def read(*messages, **media):
        (record,) = load_records(write_records({"id": "street", "messages": list(messages), **media}))
        return record

    return read


@pytest.fixture
def photo(folder):
    """A frame of the clip as a file, wider than high: 2x4 crops."""
    (frame,) = video.decode_frames(folder / "bikes.mp4", [4.0])
    Image.fromarray(frame).resize((1920, 1080)).save(folder / "photo.png")
    return folder / "photo.png"


def test_a_clip_is_described_by_its_frames_and_branches(load, tokenizer, data_config):
    record = load(CAR, video="bikes.mp4", clip=[3.04, 7.44])
    got = describe(record, tokenizer, data_config(max_frames=128), rng())
    (plan,) = got.media
    assert plan.path == record.media[0].path
    np.testing.assert_allclose(plan.times, [3.04 + k / 2 for k in range(9)] + [7.44])
    visual = layout.video_tokens([k / 2 for k in range(9)] + [4.4], tokenizer, "im", "example")
    text = (
        "<|im_start|>user\nPoint to the black car.<|im_end|>\n<|im_start|>assistant\n"
        '<points coords="2.5 1 188 500">black car</points>'
    )
    assert got.tokens[0] == tokenizer.bos_id
    assert got.tokens[1 : 1 + len(visual.tokens)].tolist() == visual.tokens.tolist()
    assert tokenizer.decode(got.tokens[1 + len(visual.tokens) :]) == text
    assert got.visual_slots.tolist() == (1 + visual.slots).tolist()
    assert (got.n_tokens, got.n_crops, got.n_pooled, got.dropped) == (len(got.tokens), 10, 810, 0)
    assert (got.id, got.where) == ("street", record.where)
    learned = got.loss_weights > 0
    assert tokenizer.decode(got.targets[learned]) == '<points coords="2.5 1 188 500">black car</points><|im_end|>'
    np.testing.assert_allclose(got.loss_weights[learned], 0.2)


def test_no_time_leaves_the_clip_by_a_rounding_error(load, tokenizer, data_config):
    assert 0.24 + (2.27 - 0.24) > 2.27
    got = describe(load(COUNT, video="bikes.mp4", clip=[0.24, 2.27]), tokenizer, data_config(), rng())
    assert (got.media[0].times[0], got.media[0].times[-1]) == (0.24, 2.27)


def test_weights_follow_style_length_and_branches(load, tokenizer, data_config):
    got = describe(load(CAR, COUNT, video="bikes.mp4"), tokenizer, data_config(), rng())
    n = len(tokenizer.encode("Two cars.")) + 1
    values = sorted(set(got.loss_weights.tolist()))
    np.testing.assert_allclose(values, [0, 0.2, 4 / np.sqrt(n) / np.sqrt(2)], rtol=1e-6)


def test_a_follow_up_closes_the_answer_before_it(load, tokenizer, data_config):
    record = load({**COUNT, "then": [{"style": "user_qa", "user": "Sure?", "answer": "Yes."}]})
    got = describe(record, tokenizer, data_config(), rng())
    assert tokenizer.decode(got.tokens[1:]) == (
        "<|im_start|>user\nHow many cars?<|im_end|>\n<|im_start|>assistant\nTwo cars.<|im_end|>"
        "<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\nYes."
    )
    assert tokenizer.decode(got.targets[got.loss_weights > 0]) == "Two cars.<|im_end|>Yes.<|im_end|>"


def test_branch_order_comes_from_the_generator(load, tokenizer, data_config):
    record = load(*({**COUNT, "user": f"Question {i}?"} for i in range(4)))
    drawn = [tuple(describe(record, tokenizer, data_config(), rng(seed)).tokens) for seed in range(12)]
    assert len(set(drawn)) > 4
    assert drawn[5] == tuple(describe(record, tokenizer, data_config(), rng(5)).tokens)
    assert len({tuple(sorted(tokens)) for tokens in drawn}) == 1


def test_an_image_is_described_by_its_tiling(load, photo, tokenizer, data_config):
    pointing = {**CAR, "style": "point_count", "answer": {"label": "car", "points": [{"x": 480, "y": 270}]}}
    got = describe(load(pointing, image="photo.png"), tokenizer, data_config(), rng())
    tiling = (2, 4)
    assert got.media == (example_lib.ImagePlan(photo, tiling),)
    assert (got.n_crops, got.n_pooled) == (9, 1162)
    assert got.tokens[1:1190].tolist() == layout.image_tokens(tiling, tokenizer).tokens.tolist()
    answer = 'Counting the <points coords="1 1 250 250">car</points> shows a total of 1.'
    assert tokenizer.decode(got.tokens[1190:]).endswith(answer)
    pooling = got.pooling()
    assert pooling.dtype == np.int32
    assert pooling.tolist() == image.image_pooling(tiling).tolist()
    views = list(got.views())
    np.testing.assert_array_equal(views, image.image_views(image.load_image(photo), tiling))


def test_a_video_is_decoded_at_its_planned_times(load, tokenizer, data_config):
    got = describe(load(COUNT, video="bikes.mp4", clip=[1.5, 3.0]), tokenizer, data_config(), rng())
    views = np.stack(list(got.views()))
    assert views.shape == (got.n_crops, 729, 588)
    frames = video.decode_frames(got.media[0].path, [1.5, 2.0, 2.5, 3.0])
    np.testing.assert_array_equal(views, [image.frame_view(frame) for frame in frames])
    assert len(got.pooling()) == got.n_pooled == 4 * 81


def test_several_media_count_their_crops_on(load, photo, tokenizer, data_config):
    one = describe(load(COUNT, image="photo.png"), tokenizer, data_config(), rng())
    two = dataclasses.replace(one, media=one.media * 2)
    patches = one.pooling()
    np.testing.assert_array_equal(
        two.pooling(), np.concatenate([patches, np.where(patches < 0, -1, patches + 9 * 729)])
    )


def test_text_alone_needs_no_vision(load, tokenizer, data_config):
    got = describe(load(COUNT), tokenizer, data_config(crops=0, pooled=0), rng())
    assert (got.n_crops, got.n_pooled, list(got.views()), got.pooling().shape) == (0, 0, [], (0, 9))
    assert got.positions.tolist() == list(range(got.n_tokens))


def test_messages_that_do_not_fit_are_dropped_and_counted(load, tokenizer, data_config):
    record = load(*({**COUNT, "user": f"Question {i}?"} for i in range(4)))
    whole = describe(record, tokenizer, data_config(), rng())
    branch = (whole.n_tokens - 1) // 4
    cut = describe(record, tokenizer, data_config(seq_len=1 + 3 * branch - 1), rng())
    assert (whole.dropped, cut.dropped) == (0, 2)
    # The order stays, its end goes, and the rest is weighted as the two branches they are.
    assert cut.tokens.tolist() == whole.tokens[: 1 + 2 * branch].tolist()
    assert cut.loss_weights.max() == pytest.approx(whole.loss_weights.max() * np.sqrt(2))


def test_a_record_larger_than_a_row_is_named_with_its_needs(load, tokenizer, data_config):
    record = load(COUNT, video="bikes.mp4")
    with pytest.raises(RecordError) as caught:
        describe(record, tokenizer, data_config(seq_len=300, crops=7, pooled=600), rng())
    tokens, crops, pooled = caught.value.problems
    assert tokens.startswith(f"{record.where}: needs 7")
    assert tokens.endswith("tokens for its media and shortest message, a row has seq_len = 300")
    assert crops == f"{record.where}: needs 8 crops, a row has crops = 7"
    assert pooled == f"{record.where}: needs 648 visual tokens, a row has pooled = 600"


def test_a_row_may_be_exactly_filled(load, tokenizer, data_config):
    record = load(COUNT, video="bikes.mp4")
    whole = describe(record, tokenizer, data_config(), rng())
    exact = data_config(seq_len=whole.n_tokens, crops=whole.n_crops, pooled=whole.n_pooled)
    assert describe(record, tokenizer, exact, rng()).n_tokens == whole.n_tokens
    with pytest.raises(RecordError, match=f"needs {whole.n_tokens} tokens"):
        describe(record, tokenizer, dataclasses.replace(exact, seq_len=whole.n_tokens - 1), rng())


def test_image_tokens_spelled_in_a_text_stay_text(load, tokenizer, data_config):
    record = load({**COUNT, "answer": "<im_patch> and <|im_end|>"})
    got = describe(record, tokenizer, data_config(), rng())
    assert got.n_pooled == 0
    assert tokenizer.special("<im_patch>") not in got.tokens


@pytest.mark.parametrize("clip", [None, (3.04, 7.44)])
def test_a_prompt_reads_as_the_training_example_up_to_the_answer(load, folder, tokenizer, data_config, clip):
    media = {"video": "bikes.mp4"} if clip is None else {"video": "bikes.mp4", "clip": list(clip)}
    trained = describe(load(COUNT, **media), tokenizer, data_config(), rng())
    path = str(folder / "bikes.mp4")
    prompt = describe_prompt("How many cars?", tokenizer, data_config(), video=path, images=(), clip=clip)
    answer = len(tokenizer.encode("Two cars."))
    for name in ("tokens", "positions", "image_group"):
        assert getattr(prompt, name).tolist() == getattr(trained, name)[:-answer].tolist()
    assert prompt.media == trained.media
    assert prompt.visual_slots.tolist() == trained.visual_slots.tolist()
    assert not prompt.loss_weights.any()
    assert set(prompt.visible_until) == {prompt.n_tokens}


def test_a_prompt_about_an_image_or_nothing(photo, tokenizer, data_config):
    about = describe_prompt("What?", tokenizer, data_config(), video=None, images=(photo,), clip=None)
    assert about.n_crops == 9
    alone = describe_prompt("What?", tokenizer, data_config(), video=None, images=(), clip=None)
    assert alone.n_tokens == about.n_tokens - 1189


def test_a_prompt_about_several_images(photo, tokenizer, data_config):
    portrait = photo.with_name("portrait.png")
    Image.open(photo).resize((300, 500)).save(portrait)
    cfg = data_config(seq_len=4096)
    both = describe_prompt("Which?", tokenizer, cfg, video=None, images=(photo, portrait), clip=None)
    tilings = [(2, 4), (2, 1)]
    visual = layout.images_tokens(tilings, tokenizer, "example")
    assert both.media == tuple(map(example_lib.ImagePlan, (photo, portrait), tilings))
    assert both.tokens[1 : 1 + len(visual.tokens)].tolist() == visual.tokens.tolist()
    assert (both.n_crops, both.n_pooled) == (9 + 3, len(visual.slots))
    # Each image pools its own crops, in the order of the prompt.
    alone = [image.image_pooling(tiling) for tiling in tilings]
    expected = [alone[0], np.where(alone[1] < 0, -1, alone[1] + 9 * 729)]
    assert both.pooling().tolist() == np.concatenate(expected).tolist()
    views = [image.image_views(image.load_image(plan.path), plan.tiling) for plan in both.media]
    np.testing.assert_array_equal(list(both.views()), np.concatenate(views))
    apart = dataclasses.replace(cfg, image_groups="frame")
    apart = describe_prompt("Which?", tokenizer, apart, video=None, images=(photo, portrait), clip=None)
    assert set(apart.image_group) == {0, 1, 2}


def test_a_bad_prompt_is_named(folder, photo, tokenizer, data_config):
    ask = lambda **media: describe_prompt("What?", tokenizer, data_config(seq_len=900), **media)  # noqa: E731
    clip = folder / "bikes.mp4"
    with pytest.raises(ValueError, match="about a video or about images, not both"):
        ask(video=clip, images=(photo,), clip=None)
    with pytest.raises(ValueError, match="a clip needs a video"):
        ask(video=None, images=(photo,), clip=(0, 1))
    with pytest.raises(ValueError, match=r"clip \[9, 11\] is empty or not inside"):
        ask(video=clip, images=(), clip=(9, 11))
    with pytest.raises(MediaError, match=r"none.mp4"):
        ask(video=folder / "none.mp4", images=(), clip=None)
    with pytest.raises(RecordError, match=r"prompt about .*photo.png: needs 12\d\d tokens"):
        ask(video=None, images=(photo,), clip=None)
    with pytest.raises(RecordError, match=r"prompt about .*photo.png, .*photo.png: needs 23\d\d tokens"):
        ask(video=None, images=(photo, photo), clip=None)
