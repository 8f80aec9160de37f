import numpy as np
import pytest

from molmo2_jax.data import image, layout, video


@pytest.mark.parametrize(
    ("duration", "max_frames", "frames", "total"),
    [(10.0, 128, 21, 1848), (63.5, 128, 128, 11371), (600.0, 128, 128, 11494), (191.5, 384, 384, 34339)],
)
def test_a_video_is_as_long_as_in_the_released_models(tokenizer, duration, max_frames, frames, total):
    times = video.frame_times(duration, max_frames, 2.0)
    got = layout.video_tokens(times, tokenizer, "im", "example")
    assert len(times) == frames
    assert len(got.tokens) == len(got.image_group) == total
    assert len(got.slots) == 81 * frames


@pytest.mark.parametrize(("frame_tokens", "start", "end"), [("im", 151936, 151937), ("frame", 151943, 151944)])
def test_a_frame_is_its_time_and_81_wrapped_patches(tokenizer, frame_tokens, start, end):
    got = layout.video_tokens([0.0, 0.5], tokenizer, frame_tokens, "frame")
    frame = [start] + [151938] * 81 + [end]
    first, second = tokenizer.encode("0.0 "), tokenizer.encode(" 0.5 ")
    assert got.tokens.tolist() == first + frame + second + frame
    # Timestamps are text: only frames are visual, each in a group of its own.
    assert got.image_group.tolist() == [0] * 4 + [1] * 83 + [0] * 5 + [2] * 83
    assert got.slots.tolist() == [*range(5, 86), *range(93, 174)]
    together = layout.video_tokens([0.0, 0.5], tokenizer, frame_tokens, "example")
    assert together.image_group.tolist() == [0] * 4 + [1] * 83 + [0] * 5 + [1] * 83


def test_times_are_written_to_a_tenth_of_a_second(tokenizer):
    got = layout.video_tokens([0.0, 2.26, 100.0], tokenizer, "im", "example")
    text = tokenizer.decode(got.tokens[got.image_group == 0])
    assert text == "0.0  2.3  100.0 "


@pytest.mark.parametrize(
    ("rows", "columns", "tokens", "patches"),
    [
        (1, 1, 410, 392),
        (1, 2, 536, 518),
        (2, 1, 545, 518),
        (2, 2, 752, 725),
        (1, 4, 802, 784),
        (4, 1, 830, 784),
        (2, 3, 982, 955),
        (3, 2, 992, 955),
        (2, 4, 1189, 1162),
        (4, 2, 1208, 1162),
        (1, 8, 1334, 1316),
        (8, 1, 1400, 1316),
    ],
)
def test_an_image_is_as_long_as_in_the_public_reference(tokenizer, rows, columns, tokens, patches):
    tiling = (rows, columns)
    got = layout.image_tokens(tiling, tokenizer)
    assert (len(got.tokens), len(got.slots)) == (tokens, patches)
    assert len(image.image_pooling(tiling)) == patches


def test_an_image_is_an_overview_and_a_grid_with_column_tokens(tokenizer):
    got = layout.image_tokens((1, 2), tokenizer)
    patch = tokenizer.special("<im_patch>")
    overview = [tokenizer.special("<low_res_im_start>"), *[patch] * 196, tokenizer.special("<im_end>")]
    line = [patch] * 23 + [tokenizer.special("<im_col>")]
    grid = [tokenizer.special("<im_start>"), *line * 14, tokenizer.special("<im_end>")]
    assert got.tokens.tolist() == overview + grid
    assert set(got.image_group) == {1}
    assert got.slots.tolist() == np.flatnonzero(got.tokens == patch).tolist()


def test_several_images_have_their_numbers_before_them(tokenizer):
    tilings = [(1, 1), (1, 2), (2, 1)]
    together = layout.images_tokens(tilings, tokenizer, "example")
    apart = layout.images_tokens(tilings, tokenizer, "frame")
    tokens, groups = [], []
    for number, tiling in enumerate(tilings, start=1):
        name, image = tokenizer.encode(f"Image {number}"), layout.image_tokens(tiling, tokenizer).tokens.tolist()
        tokens += name + image
        groups += [0] * len(name) + [number] * len(image)
    assert together.tokens.tolist() == apart.tokens.tolist() == tokens
    # Names are text; whether images see each other is the config's choice.
    assert apart.image_group.tolist() == groups
    assert together.image_group.tolist() == [min(group, 1) for group in groups]
    patches = np.flatnonzero(np.array(tokens) == tokenizer.special("<im_patch>"))
    assert together.slots.tolist() == apart.slots.tolist() == patches.tolist()


@pytest.mark.parametrize("image_groups", layout.IMAGE_GROUPS)
def test_one_image_has_no_number(tokenizer, image_groups):
    got, alone = layout.images_tokens([(2, 1)], tokenizer, image_groups), layout.image_tokens((2, 1), tokenizer)
    for name in ("tokens", "image_group", "slots"):
        assert getattr(got, name).tolist() == getattr(alone, name).tolist()


def test_text_alone_has_no_visual_tokens():
    got = layout.no_visual_tokens()
    assert len(got.tokens) == len(got.slots) == len(got.image_group) == 0


def test_unknown_rules_are_named(tokenizer):
    with pytest.raises(ValueError, match="frame_tokens is 'video', not one of"):
        layout.video_tokens([0.0], tokenizer, "video", "example")
    with pytest.raises(ValueError, match="image_groups is 'row', not one of"):
        layout.video_tokens([0.0], tokenizer, "im", "row")
    with pytest.raises(ValueError, match="image_groups is 'row', not one of"):
        layout.images_tokens([(1, 1)], tokenizer, "row")
