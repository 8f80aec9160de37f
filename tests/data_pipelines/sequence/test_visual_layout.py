import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.config import ConfigError, read_config
from data_pipelines.media import crops, frame_sampling
from data_pipelines.media.pooling import image_pooling
from data_pipelines.sequence import visual_layout
from data_pipelines.sequence.view_config import IMAGE_GROUPS, ViewConfig
from tests.data_pipelines.restrictions import restrictions
from tests.data_pipelines.sequence.views import VIEW


def video_layout(times, tok, lines=None, **changes):
    return visual_layout.video_layout(times, lines, tok, dataclasses.replace(VIEW, **changes))


def video_tokens(times, tok, frame_tokens="im", image_groups="example", **changes):
    return video_layout(times, tok, frame_tokens=frame_tokens, image_groups=image_groups, **changes).tokens(tok)


def images_tokens(crop_grids, tok, image_groups="example"):
    return visual_layout.images_layout(crop_grids, tok, image_groups).tokens(tok)


def image_tokens(crop_grid, tok):
    return images_tokens([crop_grid], tok)


@pytest.mark.parametrize(
    ("duration", "max_frames", "frames", "total"),
    [
        (10.0, 128, 21, 1848),
        (63.5, 128, 128, 11371),
        (191.5, 128, 128, None),
        (600.0, 128, 128, 11494),
        (3600.0, 128, 128, None),
        (10.0, 384, 21, 1848),
        (63.5, 384, 128, 11371),
        (191.5, 384, 384, 34339),
        (3600.0, 384, 384, 34823),
    ],
)
def test_a_video_is_as_long_as_in_the_released_models(tokenizer, duration, max_frames, frames, total):
    times = frame_sampling.uniform_last_frame(duration, max_frames, 2.0)
    small = video_layout(times, tokenizer)
    got = small.tokens(tokenizer)
    assert len(times) == frames
    assert len(got.tokens) == len(got.image_group) == small.n_tokens
    # Qwen writes a digit a token: " 12.5 " is six of them.
    stamps = sum(len(f"{time:.1f}") + 1 + (number > 0) for number, time in enumerate(times))
    assert small.n_tokens == stamps + 83 * frames == (total or small.n_tokens)
    assert len(got.slots) == 81 * frames


@pytest.mark.parametrize(("frame_tokens", "start", "end"), [("im", 151936, 151937), ("frame", 151943, 151944)])
def test_a_frame_is_its_time_and_81_wrapped_patches(tokenizer, frame_tokens, start, end):
    got = video_tokens([0.0, 0.5], tokenizer, frame_tokens, "frame")
    frame = [start] + [151938] * 81 + [end]
    first, second = tokenizer.encode("0.0 "), tokenizer.encode(" 0.5 ")
    assert got.tokens.tolist() == first + frame + second + frame
    # Timestamps are text. Only frames are visual, each in a group of its own.
    assert got.image_group.tolist() == [0] * 4 + [1] * 83 + [0] * 5 + [2] * 83
    assert got.slots.tolist() == [*range(5, 86), *range(93, 174)]
    together = video_tokens([0.0, 0.5], tokenizer, frame_tokens, "example")
    assert together.image_group.tolist() == [0] * 4 + [1] * 83 + [0] * 5 + [1] * 83


def test_times_are_written_to_a_tenth_of_a_second(tokenizer):
    got = video_tokens([0.0, 2.26, 100.0], tokenizer, "im", "example")
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
    crop_grid = (rows, columns)
    got = image_tokens(crop_grid, tokenizer)
    assert (len(got.tokens), len(got.slots)) == (tokens, patches)
    assert visual_layout.image_length(crop_grid) == tokens
    assert len(image_pooling(crop_grid)) == patches


def test_an_image_is_an_overview_and_a_grid_with_column_tokens(tokenizer):
    got = image_tokens((1, 2), tokenizer)
    patch = tokenizer.special("<im_patch>")
    overview = [tokenizer.special("<low_res_im_start>"), *[patch] * 196, tokenizer.special("<im_end>")]
    line = [patch] * 23 + [tokenizer.special("<im_col>")]
    grid = [tokenizer.special("<im_start>"), *line * 14, tokenizer.special("<im_end>")]
    assert got.tokens.tolist() == overview + grid
    assert set(got.image_group) == {1}
    assert got.slots.tolist() == np.flatnonzero(got.tokens == patch).tolist()


def test_several_images_have_their_numbers_before_them(tokenizer):
    crop_grids = [(1, 1), (1, 2), (2, 1)]
    together = images_tokens(crop_grids, tokenizer, "example")
    apart = images_tokens(crop_grids, tokenizer, "frame")
    tokens, groups = [], []
    for number, crop_grid in enumerate(crop_grids, start=1):
        name, image = tokenizer.encode(f"Image {number}"), image_tokens(crop_grid, tokenizer).tokens.tolist()
        tokens += name + image
        groups += [0] * len(name) + [number] * len(image)
    assert together.tokens.tolist() == apart.tokens.tolist() == tokens
    # Names are text. The config decides whether images attend to each other.
    assert apart.image_group.tolist() == groups
    assert together.image_group.tolist() == [min(group, 1) for group in groups]
    patches = np.flatnonzero(np.array(tokens) == tokenizer.special("<im_patch>"))
    assert together.slots.tolist() == apart.slots.tolist() == patches.tolist()


@pytest.mark.parametrize("image_groups", IMAGE_GROUPS)
def test_one_image_has_no_number(tokenizer, image_groups):
    got, alone = images_tokens([(2, 1)], tokenizer, image_groups), image_tokens((2, 1), tokenizer)
    for name in ("tokens", "image_group", "slots"):
        assert getattr(got, name).tolist() == getattr(alone, name).tolist()


def test_text_alone_has_no_visual_tokens():
    got = visual_layout.NoVisual().tokens(None)
    assert visual_layout.NoVisual().n_tokens == 0
    assert len(got.tokens) == len(got.slots) == len(got.image_group) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("frame_tokens", "video"), ("image_groups", "row"), ("timestamps", "roman"), ("subtitles", "some")],
)
def test_an_unknown_choice_is_refused(key, value):
    with pytest.raises(ConfigError, match=rf"view\.{key} = '{value}' is unknown; known: "):
        read_config(ViewConfig, dataclasses.asdict(VIEW) | {key: value}, "view")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_frames", 0, "must be at least 1"),
        ("fps", 0.0, "must be more than 0"),
        ("max_subtitle_tokens", 0, "must be at least 1"),
        ("max_crops", 0, "must be at least 1"),
        ("high_res_crops", 0, "must be at least 1"),
        ("max_images", 0, "must be at least 1"),
    ],
)
def test_a_number_out_of_range_is_refused(key, value, message):
    with pytest.raises(ConfigError, match=rf"view\.{key} = {value} {message}"):
        read_config(ViewConfig, dataclasses.asdict(VIEW) | {key: value}, "view")


def test_every_choice_of_a_view_is_laid_out(tokenizer):
    found = restrictions(ViewConfig, "view")
    for timestamps in found["view.timestamps"].values:
        for frame_tokens in found["view.frame_tokens"].values:
            for subtitles in found["view.subtitles"].values:
                small = video_layout(
                    [0.0], tokenizer, LINES, timestamps=timestamps, frame_tokens=frame_tokens, subtitles=subtitles
                )
                assert len(small.tokens(tokenizer).tokens) == small.n_tokens


@pytest.mark.parametrize("most", [8, 24])
def test_every_crop_grid_has_its_length(tokenizer, most):
    crop_grids = [(r, c) for r in range(1, most + 1) for c in range(1, most // r + 1)]
    for rows, columns in crop_grids:
        height, width = (-(-(19 * n + 8) // 2) for n in (rows, columns))
        got = image_tokens((rows, columns), tokenizer)
        assert len(got.tokens) == visual_layout.image_length((rows, columns)) == 198 + height * (width + 1) + 2
        assert len(got.slots) == 196 + height * width == len(image_pooling((rows, columns)))
    assert max(map(visual_layout.image_length, crop_grids)) == {8: 1400, 24: 3680}[most]


SIZES = [  # width, height, then (tokens, crops with the overview) of at most 8 crops and of at most 24
    (1, 1, (410, 2), (410, 2)),
    (378, 378, (410, 2), (410, 2)),
    (640, 480, (752, 5), None),
    (1024, 768, (982, 7), (1619, 13)),
    (1920, 1080, (1189, 9), (2804, 25)),
    (1000, 1000, (752, 5), None),
    (2000, 2000, (752, 5), None),
    (10_000, 10_000, (752, 5), None),
    (10_000, 1, (410, 2), (410, 2)),
    (1, 10_000, (410, 2), (410, 2)),
    (10_000, 200, (1334, 9), None),
    (200, 10_000, (1400, 9), (3680, 25)),
]


@pytest.mark.parametrize(("width", "height", "at_8", "at_24"), SIZES)
def test_an_image_of_any_size(width, height, at_8, at_24):
    for most, expected in ((8, at_8), (24, at_24)):
        rows, columns = crops.choose_crop_grid(height, width, most)
        assert rows * columns <= most
        if expected is not None:
            assert (visual_layout.image_length((rows, columns)), 1 + rows * columns) == expected


@pytest.mark.parametrize(
    ("timestamps", "text"),
    [
        ("per-frame", "time 0.00time 2.50"),
        ("numbered-frames", "1:2:"),
        ("none", ""),
        ("per-frame-compact", "0.0  2.5 "),
    ],
)
def test_what_stands_before_a_frame(tokenizer, timestamps, text):
    got = video_tokens([0.0, 2.5], tokenizer, timestamps=timestamps)
    assert tokenizer.decode(got.tokens[got.image_group == 0]) == text


LINES = ((0.0, 1.0, "First."), (3.5, 4.0, "Between <|im_end|>."), (9.0, 9.5, "Late."))


@pytest.mark.parametrize(
    ("show", "lines", "text"),
    [
        ("all", LINES, "0.0 - 1.0 First.\n3.5 - 4.0 Between <|im_end|>.\n9.0 - 9.5 Late.\n"),
        (
            "frame_1",
            LINES,
            "0.0 - 1.0 First.\n9.0 - 9.5 Late.\n",
        ),  # frames at 0, 2 and 8: the second line is 1.5 s away
        ("all", "As it\nstands.", "As it\nstands."),
        ("ignore", LINES, None),
        ("all", None, None),
        ("all", (), None),
    ],
)
def test_subtitles_follow_the_frames(tokenizer, show, lines, text):
    plain = video_tokens([0.0, 2.0, 8.0], tokenizer).tokens
    small = video_layout([0.0, 2.0, 8.0], tokenizer, lines, subtitles=show)
    got = small.tokens(tokenizer)
    assert small.n_tokens == len(got.tokens) == len(got.image_group) and small.dropped == 0
    assert got.tokens[: len(plain)].tolist() == plain.tolist()
    rest = got.tokens[len(plain) :]
    assert tokenizer.decode(rest) == ("" if text is None else f"subtitle\n{text}")
    assert rest.size == 0 or rest.max() < 151_643  # text alone
    assert not got.image_group[len(plain) :].any()


def test_subtitles_without_room_are_counted(tokenizer):
    whole = video_layout([0.0], tokenizer, LINES, subtitles="all")
    first = len(tokenizer.encode("subtitle\n0.0 - 1.0 First.\n"))
    for most, kept in ((first, 1), (first - 1, 0), (first + 1, 1), (500, 3)):
        cut = video_layout([0.0], tokenizer, LINES, subtitles="all", max_subtitle_tokens=most)
        assert cut.dropped == 3 - kept
        assert whole.subtitles[: len(cut.subtitles)] == cut.subtitles
        assert len(cut.subtitles) <= most


@settings(max_examples=25)
@given(times=st.lists(st.floats(0, 9999), min_size=1, max_size=6), text=st.text(max_size=20))
def test_a_length_is_known_before_the_tokens_are_written(tokenizer, times, text):
    small = video_layout(sorted(times), tokenizer, ((0.0, 1.0, text),), subtitles="all")
    assert small.n_tokens == len(small.tokens(tokenizer).tokens)
