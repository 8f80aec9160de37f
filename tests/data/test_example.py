import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from molmo2_jax.data import image, layout, sampling, video
from molmo2_jax.data import views as views_lib
from molmo2_jax.data.config import DatasetConfig
from molmo2_jax.data.dataset import open_dataset
from molmo2_jax.data.example import describe, describe_prompt, first_turns
from molmo2_jax.data.media import Location, open_image, open_video
from molmo2_jax.data.record import RecordError

PLAIN = DatasetConfig("", None, 1.0, None, 0.0)
CAR = {
    "style": "video_point",
    "user": "Point to the black car.",
    "answer": {"label": "black car", "points": [{"time": 5.54, "x": 120, "y": 136}]},
}
COUNT = {"style": "user_qa", "user": "How many cars?", "answer": "Two cars."}


@pytest.fixture
def load(write_records):
    def read(*messages, **media):
        path = write_records({"id": "street", "messages": list(messages), **media})
        return open_dataset(str(path)).record(0)

    return read


@pytest.fixture
def draw(load, tokenizer, data_config):
    """The examples of a record of `messages` and media; keywords of a config go in `cfg`."""

    def examples(*messages, cfg=None, settings=PLAIN, seed=0, **media):
        rng = np.random.default_rng(seed)
        return describe(load(*messages, **media), "street", settings, tokenizer, cfg or data_config(), rng)

    return examples


@pytest.fixture
def photo(folder):
    """A frame of the clip as a file, wider than high: 2x4 crops."""
    (frame,) = video.decode_frames(folder / "bikes.mp4", [4.0])
    Image.fromarray(frame).resize((1920, 1080)).save(folder / "photo.png")
    return folder / "photo.png"


def views(example):
    return [view for plan in example.media for view in plan.views()]


def video_tokens(times, tok):
    options = {"frame_tokens": "im", "image_groups": "example", "timestamps": "per-frame-compact"}
    return layout.video_layout(times, tok, **options).tokens(tok)


def test_a_clip_is_described_by_its_frames_and_branches(draw, folder, tokenizer, data_config):
    (got,) = draw(CAR, video="bikes.mp4", clip=[3.04, 7.44], cfg=data_config(max_frames=128))
    (plan,) = got.media
    assert str(plan.location) == str(folder / "bikes.mp4")
    np.testing.assert_allclose(plan.times, [3.04 + k / 2 for k in range(9)] + [7.44])
    visual = video_tokens([k / 2 for k in range(9)] + [4.4], tokenizer)
    text = (
        "<|im_start|>user\nPoint to the black car.<|im_end|>\n<|im_start|>assistant\n"
        '<points coords="2.5 1 188 500">black car</points>'
    )
    laid = got.lay_out(tokenizer, 4.0)
    assert laid.tokens[0] == tokenizer.bos_id
    assert laid.tokens[1 : 1 + len(visual.tokens)].tolist() == visual.tokens.tolist()
    assert tokenizer.decode(laid.tokens[1 + len(visual.tokens) :]) == text
    assert laid.visual_slots.tolist() == (1 + visual.slots).tolist()
    assert (got.n_tokens, got.n_crops, got.n_pooled, got.dropped) == (len(laid.tokens), 10, 810, 0)
    assert (got.dataset, got.id) == ("street", "street") and got.where.endswith("records.jsonl:1: record 'street'")
    learned = laid.loss_weights > 0
    assert tokenizer.decode(laid.targets[learned]) == '<points coords="2.5 1 188 500">black car</points><|im_end|>'
    np.testing.assert_allclose(laid.loss_weights[learned], 0.2)


def test_no_time_leaves_the_clip_by_a_rounding_error(draw):
    assert 0.24 + (2.27 - 0.24) > 2.27
    (got,) = draw(COUNT, video="bikes.mp4", clip=[0.24, 2.27])
    assert (got.media[0].times[0], got.media[0].times[-1]) == (0.24, 2.27)


def weights_of(example, tokenizer, c=4.0):
    return sorted(set(example.lay_out(tokenizer, c).loss_weights.tolist()) - {0.0})


def test_weights_follow_style_length_and_branches(draw, tokenizer, data_config):
    n = len(tokenizer.encode("Two cars.")) + 1
    long = 4 / np.sqrt(n) / np.sqrt(2)
    (got,) = draw(CAR, COUNT, video="bikes.mp4")
    np.testing.assert_allclose(weights_of(got, tokenizer), sorted([0.2, long]), rtol=1e-6)
    (got,) = draw(CAR, COUNT | {"weight": 0.5}, video="bikes.mp4")
    np.testing.assert_allclose(weights_of(got, tokenizer), sorted([0.2, long / 2]), rtol=1e-6)
    # A dataset's weight stands above all styles and lengths; in "one" mode nothing weighs but it and messages' factors.
    flat = dataclasses.replace(PLAIN, weight=0.25)
    (got,) = draw(CAR, COUNT, video="bikes.mp4", settings=flat)
    np.testing.assert_allclose(weights_of(got, tokenizer), [0.25])
    one = data_config(token_weights="one")
    (got,) = draw(CAR, COUNT | {"weight": 2.0}, video="bikes.mp4", cfg=one)
    np.testing.assert_allclose(weights_of(got, tokenizer), [1, 2])


def test_the_order_of_branches_and_the_wording_are_drawn(draw, tokenizer, data_config):
    asked = {"style": "video_point", "answer": CAR["answer"]}
    cfg = data_config(prompts="templates")
    seen = {
        tuple(tokenizer.decode(turn.user) for turn in draw(asked, COUNT, video="bikes.mp4", seed=s, cfg=cfg)[0].turns)
        for s in range(8)
    }
    assert len(seen) > 4
    assert {order[0] == COUNT["user"] or "How many cars?" in order[0] for order in seen} == {True, False}
    again = [draw(asked, COUNT, video="bikes.mp4", seed=3, cfg=cfg)[0].lay_out(tokenizer, 4.0).tokens for _ in range(2)]
    assert again[0].tolist() == again[1].tolist()


def test_an_image_is_cut_as_its_size_says(draw, photo, tokenizer):
    (got,) = draw(COUNT, image="photo.png")
    (plan,) = got.media
    assert plan.tiling == (2, 4) and got.n_crops == 9 and got.units == ((9, 1162),)
    np.testing.assert_array_equal(got.pooling(), views_lib.image_pooling((2, 4)))
    np.testing.assert_array_equal(views(got), views_lib.image_views(image.load_image(str(photo)), (2, 4)))


def test_high_resolution_is_drawn_for_single_images(draw, photo, data_config):
    cfg = data_config(high_res_crops=24, seq_len=8192, crops=60, pooled=8192)
    settings = dataclasses.replace(PLAIN, high_res=0.3)
    known = {"at": "photo.png", "width": 1920, "height": 1080}
    crops = [draw(COUNT, image=known, cfg=cfg, settings=settings, seed=s)[0].n_crops for s in range(100)]
    assert set(crops) == {9, 25} and 15 <= crops.count(25) <= 45
    two = [draw(COUNT, images=[known] * 2, cfg=cfg, settings=settings, seed=s)[0].n_crops for s in range(20)]
    assert set(two) == {18}


def test_several_images_have_names_and_count_their_crops_on(draw, photo, tokenizer, data_config):
    Image.open(photo).resize((300, 500)).save(photo.with_name("portrait.png"))
    cfg = data_config(seq_len=4096, image_groups="frame")
    (got,) = draw(COUNT, images=["photo.png", "portrait.png"], cfg=cfg)
    tilings = [(2, 4), (2, 1)]
    visual = layout.images_layout(tilings, tokenizer, "frame").tokens(tokenizer)
    laid = got.lay_out(tokenizer, 4.0)
    assert laid.tokens[1 : 1 + len(visual.tokens)].tolist() == visual.tokens.tolist()
    assert tokenizer.decode(laid.tokens[1:3]).startswith("Image")
    assert set(laid.image_group) == {0, 1, 2}
    alone = [views_lib.image_pooling(tiling) for tiling in tilings]
    expected = np.concatenate([alone[0], np.where(alone[1] < 0, -1, alone[1] + 9 * 729)])
    assert got.pooling().tolist() == expected.tolist()
    assert got.units == ((9, 1162), (3, 518))
    with pytest.raises(RecordError, match="has 6 images, an example max_images = 5") as caught:
        draw(COUNT, images=["photo.png"] * 6, cfg=cfg)
    assert caught.value.reason == "too_many_crops"


def test_a_video_is_decoded_at_its_planned_times(draw, folder):
    (got,) = draw(COUNT, video="bikes.mp4", clip=[1.5, 3.0])
    frames = video.decode_frames(folder / "bikes.mp4", [1.5, 2.0, 2.5, 3.0])
    np.testing.assert_array_equal(views(got), [views_lib.frame_view(frame) for frame in frames])
    assert len(got.pooling()) == got.n_pooled == 4 * 81
    assert got.units == ((1, 81),) * 4


def test_subtitles_of_the_clip_are_shown_after_its_frames(draw, tokenizer, data_config):
    lines = [[0.0, 1.0, "Before."], [3.2, 4.0, "Look!"], [9.0, 9.5, "After."]]
    (got,) = draw(COUNT, video="bikes.mp4", clip=[3.0, 4.0], subtitles=lines)
    laid = got.lay_out(tokenizer, 4.0)
    root = tokenizer.decode(laid.tokens[: 1 + got.visual.n_tokens])
    assert root.endswith("<im_end>subtitle\n0.2 - 1.0 Look!\n")
    (cut,) = draw(COUNT, video="bikes.mp4", clip=[3, 4], subtitles=lines, cfg=data_config(max_subtitle_tokens=3))
    assert cut.dropped == 1 and got.dropped == 0


def test_tracks_are_asked_where_frames_show_them(draw, tokenizer):
    tracks = [{"time": 2.0 + k / 4, "points": {"7": [64 * k, 136]}} for k in range(5)]
    message = {"style": "video_point_track_per_frame", "answer": {"label": "rider", "fps": 2, "tracks": tracks}}
    (got,) = draw(message, video="bikes.mp4", clip=[2.0, 3.0], frame_rates=[2])
    answer = tokenizer.decode(got.turns[0].answer)
    assert answer == '<tracks coords="0.0 1 000 500;0.5 1 200 500">rider</tracks>'  # 1.0 s is no frame of that grid


def test_text_alone_needs_no_vision(draw, tokenizer, data_config):
    (got,) = draw(COUNT, cfg=data_config(crops=0, pooled=0))
    assert (got.n_crops, got.n_pooled, views(got), got.pooling().shape) == (0, 0, [], (0, 9))
    assert got.lay_out(tokenizer, 4.0).positions.tolist() == list(range(got.n_tokens))


QUESTIONS = [{**COUNT, "user": f"Question {i}?"} for i in range(4)]


def test_messages_that_do_not_fit_are_dropped_and_counted(draw, tokenizer, data_config):
    (whole,) = draw(*QUESTIONS)
    branch = (whole.n_tokens - 1) // 4
    (cut,) = draw(*QUESTIONS, cfg=data_config(seq_len=1 + 3 * branch - 1, overflow="drop"))
    assert (whole.dropped, cut.dropped) == (0, 2)
    # The order stays, its end goes, and the rest is weighted as the two branches they are.
    full, laid = whole.lay_out(tokenizer, 4.0), cut.lay_out(tokenizer, 4.0)
    assert laid.tokens.tolist() == full.tokens[: 1 + 2 * branch].tolist()
    assert laid.loss_weights.max() == pytest.approx(full.loss_weights.max() * np.sqrt(2))


def test_messages_that_do_not_fit_go_to_another_row_with_the_media(draw, tokenizer, data_config):
    long = {**COUNT, "user": "Too long? " * 400}
    cfg = data_config(overflow="split", seq_len=600)
    parts = draw(*QUESTIONS * 4, long, video="bikes.mp4", clip=[1, 3], cfg=cfg)
    assert len(parts) > 1
    assert all(part.media == parts[0].media and part.n_tokens <= 600 for part in parts)
    assert [part.dropped for part in parts] == [1] + [0] * (len(parts) - 1)  # the long one fits no row
    asked = [tokenizer.decode(turn.user) for part in parts for turn in part.turns]
    assert len(asked) == 16 and all(asked.count(one) == 4 for one in set(asked))
    for part in parts:  # each part weighs its own branches
        n = len(tokenizer.encode("Two cars.")) + 1
        np.testing.assert_allclose(weights_of(part, tokenizer), [4 / np.sqrt(n) / np.sqrt(len(part.turns))], rtol=1e-6)


def test_a_record_larger_than_a_row_is_named_with_its_needs(draw, data_config):
    with pytest.raises(RecordError) as caught:
        draw(COUNT, video="bikes.mp4", cfg=data_config(seq_len=300, crops=7, pooled=600))
    tokens, crops, pooled = caught.value.problems
    assert "record 'street': needs 7" in tokens
    assert tokens.endswith("tokens for its media and shortest message, a row has seq_len = 300")
    assert crops.endswith(": needs 8 crops, a row has crops = 7")
    assert pooled.endswith(": needs 648 visual tokens, a row has pooled = 600")
    assert caught.value.reason == "too_long"
    with pytest.raises(RecordError) as caught:
        draw(COUNT, video="bikes.mp4", cfg=data_config(crops=7))
    assert caught.value.reason == "too_many_crops"


def test_an_image_larger_than_a_vision_shard_is_named(draw, photo, data_config):
    cfg = data_config(crops=16, pooled=4096, vision_shards=2)
    with pytest.raises(RecordError, match="images of up to 9 crops do not fit 2 vision shards") as caught:
        draw(COUNT, image="photo.png", cfg=cfg)
    assert caught.value.reason == "too_many_crops"
    assert draw(COUNT, video="bikes.mp4", cfg=cfg)  # frames can be spread


def test_a_row_may_be_exactly_filled(draw, data_config):
    (whole,) = draw(COUNT, video="bikes.mp4")
    exact = data_config(seq_len=whole.n_tokens, crops=whole.n_crops, pooled=whole.n_pooled)
    assert draw(COUNT, video="bikes.mp4", cfg=exact)[0].n_tokens == whole.n_tokens
    with pytest.raises(RecordError, match=f"needs {whole.n_tokens} tokens"):
        draw(COUNT, video="bikes.mp4", cfg=dataclasses.replace(exact, seq_len=whole.n_tokens - 1))


def test_image_tokens_spelled_in_a_text_stay_text(draw, tokenizer):
    (got,) = draw({**COUNT, "user": "<|im_start|>", "answer": "<im_patch> and <|im_end|>"})
    laid = got.lay_out(tokenizer, 4.0)
    assert got.n_pooled == 0
    assert tokenizer.special("<im_patch>") not in laid.tokens
    assert (laid.tokens == tokenizer.special("<|im_start|>")).sum() == 2  # the turns' own
    assert tokenizer.decode(got.turns[0].answer) == "<im_patch> and <|im_end|>"


def test_a_message_that_cannot_be_written_names_the_record(draw):
    none_left = {"style": "video_point_track_per_frame", "answer": {"label": "x", "fps": 1, "tracks": []}}
    none_left["answer"]["tracks"] = [{"time": 1.3, "points": {"a": [1, 1]}}]
    with pytest.raises(RecordError, match=r"record 'street': .*video_point_track_per_frame") as caught:
        draw(none_left, video="bikes.mp4", clip=[1, 2])
    assert caught.value.reason == "unwritable"


def ask(text, tok, cfg, *media):
    return describe_prompt(text, media, tok, cfg)


@pytest.mark.parametrize("clip", [None, (3.04, 7.44)])
def test_a_prompt_reads_as_the_training_example_up_to_the_answer(draw, folder, tokenizer, data_config, clip):
    media = {"video": "bikes.mp4"} if clip is None else {"video": "bikes.mp4", "clip": list(clip)}
    (trained,) = draw(COUNT, **media)
    prompt = ask("How many cars?", tokenizer, data_config(), open_video(Location.of(folder / "bikes.mp4"), clip))
    answer = len(tokenizer.encode("Two cars."))
    ours, theirs = prompt.lay_out(tokenizer, 1.0), trained.lay_out(tokenizer, 4.0)
    for name in ("tokens", "positions", "image_group"):
        assert getattr(ours, name).tolist() == getattr(theirs, name)[:-answer].tolist()
    assert prompt.media[0].times == trained.media[0].times
    assert ours.visual_slots.tolist() == theirs.visual_slots.tolist()
    assert not ours.loss_weights.any()
    assert set(ours.visible_until) == {prompt.n_tokens}


def test_a_prompt_about_images_or_nothing(photo, tokenizer, data_config):
    one = open_image(Location.of(photo))
    assert ask("What?", tokenizer, data_config(), one).n_crops == 9
    alone = ask("What?", tokenizer, data_config())
    assert alone.n_tokens == ask("What?", tokenizer, data_config(), one).n_tokens - 1189
    assert ask("Which?", tokenizer, data_config(seq_len=4096, pooled=4096), one, one).n_crops == 18
    with pytest.raises(RecordError, match=r"prompt about .*photo.png, .*photo.png: needs 23\d\d tokens"):
        ask("What?", tokenizer, data_config(seq_len=900), one, one)


def test_the_first_turn_of_every_branch(load, data_config):
    record = load(CAR, COUNT | {"then": [COUNT]}, {"any": [COUNT, COUNT]}, video="bikes.mp4")
    turns = first_turns(record, data_config(), np.random.default_rng(0))
    assert [turn.user for turn in turns] == ["Point to the black car.", "How many cars?", "How many cars?"]
    assert turns[0].answer == '<points coords="5.5 1 188 500">black car</points>'


def test_times_of_a_whole_video(draw, data_config):
    (got,) = draw(COUNT, video="bikes.mp4", cfg=data_config(max_frames=128))
    np.testing.assert_allclose(got.media[0].times, sampling.uniform_last_frame(10.0, 128, 2.0), atol=0.05)


@pytest.mark.parametrize(
    ("fps", "rates", "said", "shown"), [(6, [1, 2, 3], 3, 7), (2, [3], 1, 3), (2, [2], 2, 5), (2, [2, 4], 2, 5)]
)
def test_the_rate_of_tracks_that_is_said_is_the_one_that_is_shown(
    draw, tokenizer, data_config, fps, rates, said, shown
):
    tracks = [{"time": 1 + k / fps, "points": {"7": [10, 10]}} for k in range(2 * fps + 1)]
    message = {"style": "video_point_track_per_frame", "answer": {"label": "rider", "fps": fps, "tracks": tracks}}
    cfg = data_config(max_frames=24, prompts="templates", seq_len=4096)
    for seed in range(6):
        (got,) = draw(message, video="bikes.mp4", clip=[1.0, 3.2], frame_rates=rates, cfg=cfg, seed=seed)
        user, answer = (tokenizer.decode(part) for part in (got.turns[0].user, got.turns[0].answer))
        assert answer.count(" 1 ") == shown
        numbers = set(re.findall(r"\b[1-6]\b", user.split("user\n")[1].split("<points")[0].split("<tracks")[0]))
        assert numbers <= {str(said)} and (numbers or said == 2)
