import re

import numpy as np
import pytest
from PIL import Image

from data_pipelines.media import crops as crops_lib
from data_pipelines.media import frame_sampling, image, video
from data_pipelines.media.location import Location
from data_pipelines.media.medium import open_image, open_video
from data_pipelines.media.pooling import image_pooling
from data_pipelines.packing.fit import fit_to_row
from data_pipelines.packing.schema import RowShape
from data_pipelines.records.problems import RecordError
from data_pipelines.sequence import visual_layout
from data_pipelines.sequence.example import describe_prompt, first_turns

CAR = {
    "style": "video_point",
    "user": "Point to the black car.",
    "answer": {"label": "black car", "points": [{"time": 5.54, "x": 120, "y": 136}]},
}
COUNT = {"style": "user_qa", "user": "How many cars?", "answer": "Two cars."}


def decoded_crops(example):
    return [crop for plan in example.media for crop in plan.crops()]


def video_tokens(times, tok, view):
    return visual_layout.video_layout(times, None, tok, view).tokens(tok)


def test_a_clip_is_described_by_its_frames_and_branches(draw, folder, tokenizer, data_config):
    got = draw(CAR, video="bikes.mp4", clip=[3.04, 7.44], config=data_config(max_frames=128))
    (plan,) = got.media
    assert str(plan.location) == str(folder / "bikes.mp4")
    np.testing.assert_allclose(plan.times, [3.04 + k / 2 for k in range(9)] + [7.44])
    visual = video_tokens([k / 2 for k in range(9)] + [4.4], tokenizer, data_config().view)
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
    supervised = laid.loss_weights > 0
    assert tokenizer.decode(laid.targets[supervised]) == '<points coords="2.5 1 188 500">black car</points><|im_end|>'
    np.testing.assert_allclose(laid.loss_weights[supervised], 0.2)


def test_no_time_leaves_the_clip_by_a_rounding_error(draw):
    assert 0.24 + (2.27 - 0.24) > 2.27
    got = draw(COUNT, video="bikes.mp4", clip=[0.24, 2.27])
    assert (got.media[0].times[0], got.media[0].times[-1]) == (0.24, 2.27)


def test_the_order_of_branches_and_the_wording_are_drawn(draw, tokenizer, data_config):
    asked = {"style": "video_point", "answer": CAR["answer"]}
    config = data_config(templates=True)
    seen = {
        tuple(
            tokenizer.decode(turn.user) for turn in draw(asked, COUNT, video="bikes.mp4", seed=s, config=config).turns
        )
        for s in range(8)
    }
    assert len(seen) > 4
    assert {order[0] == COUNT["user"] or "How many cars?" in order[0] for order in seen} == {True, False}
    again = [
        draw(asked, COUNT, video="bikes.mp4", seed=3, config=config).lay_out(tokenizer, 4.0).tokens for _ in range(2)
    ]
    assert again[0].tolist() == again[1].tolist()


def test_an_image_is_cut_as_its_size_says(draw, photo, tokenizer):
    got = draw(COUNT, image="photo.png")
    (plan,) = got.media
    assert plan.crop_grid == (2, 4) and got.n_crops == 9 and got.units == ((9, 1162),)
    np.testing.assert_array_equal(got.pooling(), image_pooling((2, 4)))
    np.testing.assert_array_equal(decoded_crops(got), crops_lib.image_crops(image.load_image(str(photo)), (2, 4)))


def test_high_resolution_is_drawn_for_single_images(draw, photo, data_config):
    config = data_config(high_res_crops=24)
    known = {"at": "photo.png", "width": 1920, "height": 1080}
    crops = [draw(COUNT, image=known, config=config, high_res=0.3, seed=s).n_crops for s in range(100)]
    assert set(crops) == {9, 25} and 15 <= crops.count(25) <= 45
    two = [draw(COUNT, images=[known] * 2, config=config, high_res=0.3, seed=s).n_crops for s in range(20)]
    assert set(two) == {18}


def test_several_images_have_names_and_count_their_crops_on(draw, photo, tokenizer, data_config):
    Image.open(photo).resize((300, 500)).save(photo.with_name("portrait.png"))
    config = data_config(image_groups="frame")
    got = draw(COUNT, images=["photo.png", "portrait.png"], config=config)
    crop_grids = [(2, 4), (2, 1)]
    visual = visual_layout.images_layout(crop_grids, tokenizer, "frame").tokens(tokenizer)
    laid = got.lay_out(tokenizer, 4.0)
    assert laid.tokens[1 : 1 + len(visual.tokens)].tolist() == visual.tokens.tolist()
    assert tokenizer.decode(laid.tokens[1:3]).startswith("Image")
    assert set(laid.image_group) == {0, 1, 2}
    alone = [image_pooling(crop_grid) for crop_grid in crop_grids]
    expected = np.concatenate([alone[0], np.where(alone[1] < 0, -1, alone[1] + 9 * 729)])
    assert got.pooling().tolist() == expected.tolist()
    assert got.units == ((9, 1162), (3, 518))
    with pytest.raises(RecordError, match="has 6 images, more than max_images = 5") as caught:
        draw(COUNT, images=["photo.png"] * 6, config=config)
    assert caught.value.reason == "too_many_crops"


def test_a_video_is_decoded_at_its_planned_times(draw, folder):
    got = draw(COUNT, video="bikes.mp4", clip=[1.5, 3.0])
    frames = video.decode_frames(folder / "bikes.mp4", [1.5, 2.0, 2.5, 3.0])
    np.testing.assert_array_equal(decoded_crops(got), [crops_lib.frame_crop(frame) for frame in frames])
    assert len(got.pooling()) == got.n_pooled == 4 * 81
    assert got.units == ((1, 81),) * 4


def test_subtitles_of_the_clip_are_shown_after_its_frames(draw, tokenizer, data_config):
    lines = [[0.0, 1.0, "Before."], [3.2, 4.0, "Look!"], [9.0, 9.5, "After."]]
    got = draw(COUNT, video="bikes.mp4", clip=[3.0, 4.0], subtitles=lines)
    laid = got.lay_out(tokenizer, 4.0)
    root = tokenizer.decode(laid.tokens[: 1 + got.visual.n_tokens])
    assert root.endswith("<im_end>subtitle\n0.2 - 1.0 Look!\n")
    cut = draw(COUNT, video="bikes.mp4", clip=[3, 4], subtitles=lines, config=data_config(max_subtitle_tokens=3))
    assert cut.dropped == 1 and got.dropped == 0


def test_tracks_are_asked_where_frames_show_them(draw, tokenizer):
    tracks = [{"time": 2.0 + k / 4, "points": {"7": [64 * k, 136]}} for k in range(5)]
    message = {"style": "video_point_track_per_frame", "answer": {"label": "rider", "fps": 2, "tracks": tracks}}
    got = draw(message, video="bikes.mp4", clip=[2.0, 3.0], frame_rates=[2])
    answer = tokenizer.decode(got.turns[0].answer)
    assert answer == '<tracks coords="0.0 1 000 500;0.5 1 200 500">rider</tracks>'  # 1.0 s is no frame of that grid


def test_text_alone_needs_no_vision(draw, tokenizer):
    got = draw(COUNT)
    assert fit_to_row(got, RowShape(2048, crops=0, pooled=0), 1, "drop")
    assert (got.n_crops, got.n_pooled, decoded_crops(got), got.pooling().shape) == (0, 0, [], (0, 9))
    assert got.lay_out(tokenizer, 4.0).positions.tolist() == list(range(got.n_tokens))


def test_image_tokens_spelled_in_a_text_stay_text(draw, tokenizer):
    got = draw({**COUNT, "user": "<|im_start|>", "answer": "<im_patch> and <|im_end|>"})
    laid = got.lay_out(tokenizer, 4.0)
    assert got.n_pooled == 0
    assert tokenizer.special("<im_patch>") not in laid.tokens
    assert (laid.tokens == tokenizer.special("<|im_start|>")).sum() == 2  # of the chat format
    assert tokenizer.decode(got.turns[0].answer) == "<im_patch> and <|im_end|>"


def test_a_message_that_cannot_be_written_names_the_record(draw):
    none_left = {"style": "video_point_track_per_frame", "answer": {"label": "x", "fps": 1, "tracks": []}}
    none_left["answer"]["tracks"] = [{"time": 1.3, "points": {"a": [1, 1]}}]
    with pytest.raises(RecordError, match=r"record 'street': .*video_point_track_per_frame") as caught:
        draw(none_left, video="bikes.mp4", clip=[1, 2])
    assert caught.value.reason == "unwritable"


def ask(text, tok, config, *media):
    return describe_prompt(text, media, tok, config.view)


@pytest.mark.parametrize("clip", [None, (3.04, 7.44)])
def test_a_prompt_reads_as_the_training_example_up_to_the_answer(draw, folder, tokenizer, data_config, clip):
    media = {"video": "bikes.mp4"} if clip is None else {"video": "bikes.mp4", "clip": list(clip)}
    trained = draw(COUNT, **media)
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
    assert ask("Which?", tokenizer, data_config(), one, one).n_crops == 18
    with pytest.raises(RecordError, match=r"prompt about .*photo.png, .*photo.png: has 2 images, more than max_images"):
        ask("What?", tokenizer, data_config(max_images=1), one, one)


def test_the_first_turn_of_every_branch(load, data_config):
    record = load(CAR, COUNT | {"then": [COUNT]}, {"any": [COUNT, COUNT]}, video="bikes.mp4")
    turns = first_turns(record, data_config().view, data_config().prompts, np.random.default_rng(0))
    assert [turn.user for turn in turns] == ["Point to the black car.", "How many cars?", "How many cars?"]
    assert turns[0].answer == '<points coords="5.5 1 188 500">black car</points>'


def test_times_of_a_whole_video(draw, data_config):
    got = draw(COUNT, video="bikes.mp4", config=data_config(max_frames=128))
    np.testing.assert_allclose(got.media[0].times, frame_sampling.uniform_last_frame(10.0, 128, 2.0), atol=0.05)


@pytest.mark.parametrize(
    ("fps", "rates", "named", "shown"), [(6, [1, 2, 3], 3, 7), (2, [3], 1, 3), (2, [2], 2, 5), (2, [2, 4], 2, 5)]
)
def test_the_prompt_names_the_rate_at_which_tracks_are_shown(draw, tokenizer, data_config, fps, rates, named, shown):
    tracks = [{"time": 1 + k / fps, "points": {"7": [10, 10]}} for k in range(2 * fps + 1)]
    message = {"style": "video_point_track_per_frame", "answer": {"label": "rider", "fps": fps, "tracks": tracks}}
    config = data_config(max_frames=24, templates=True)
    for seed in range(6):
        got = draw(message, video="bikes.mp4", clip=[1.0, 3.2], frame_rates=rates, config=config, seed=seed)
        user, answer = (tokenizer.decode(part) for part in (got.turns[0].user, got.turns[0].answer))
        assert answer.count(" 1 ") == shown
        numbers = set(re.findall(r"\b[1-6]\b", user.split("user\n")[1].split("<points")[0].split("<tracks")[0]))
        assert numbers <= {str(named)} and (numbers or named == 2)
