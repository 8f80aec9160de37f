import numpy as np
import pytest

from molmo2_jax.viewer import row_reader
from tests.molmo2_jax.viewer import rows as by_hand
from tests.molmo2_jax.viewer.rows import Turn, Visual, images, video


def names(until, start=0):
    parts = row_reader.branches(np.array(until), start, len(until))
    return [(part.name, part.start, part.stop, part.depth, part.parent) for part in parts]


def test_examples_follow_each_other_up_to_the_padding():
    assert row_reader.example_bounds(np.array([4, 2, 4, 4, 6, 6, 0])) == [(0, 4), (4, 6)]
    assert row_reader.example_bounds(np.array([2, 2])) == [(0, 2)]
    assert row_reader.example_bounds(np.zeros(3, np.int32)) == []


@pytest.mark.parametrize("until", [[3, 3], [2, 2, 1, 0], [2, 3, 3]])
def test_what_no_packer_writes_is_an_error(until):
    with pytest.raises(ValueError, match="begins an example"):
        row_reader.example_bounds(np.array(until))


def test_a_tree_of_branches():
    assert names([10, 10, 7, 7, 6, 6, 7, 10, 10, 10]) == [
        ("root", 0, 2, 0, None),
        ("A", 2, 4, 1, 0),
        ("A.1", 4, 6, 2, 1),
        ("A.2", 6, 7, 2, 1),
        ("B", 7, 10, 1, 0),
    ]


def test_a_lonely_branch_is_one_run_with_its_root():
    assert names([5] * 5) == [("root", 0, 5, 0, None)]


def test_children_of_the_last_branch():
    assert names([6, 3, 3, 6, 5, 6]) == [
        ("root", 0, 1, 0, None),
        ("A", 1, 3, 1, 0),
        ("B", 3, 4, 1, 0),
        ("B.1", 4, 5, 2, 2),
        ("B.2", 5, 6, 2, 2),
    ]


def test_letters_go_on_after_z():
    assert [row_reader.letters(n) for n in (1, 2, 26, 27, 52, 53, 702, 703)] == [
        "A",
        "B",
        "Z",
        "AA",
        "AZ",
        "BA",
        "ZZ",
        "AAA",
    ]


def test_frames_have_their_timestamps(tokenizer):
    row = by_hand.row(tokenizer, [(video(tokenizer, [0.0, 0.5, 12.5]), [Turn("Q", "yes"), Turn("Q", "no")])])
    (example,) = row_reader.read_row(row, tokenizer)
    assert [(p.crop, p.key, p.caption) for p in example.pictures] == [
        (0, 0.0, "0.0 s"),
        (1, 0.5, "0.5 s"),
        (2, 12.5, "12.5 s"),
    ]
    assert example.subtitles == []


@pytest.mark.parametrize(
    ("stamp", "keys", "caption"),
    [
        ("{:.1f} ", [0.0, 0.5], "0.5 s"),
        ("time {:.2f}", [0.0, 0.5], "0.50 s"),
        ("{:.0f}:", [None, None], "frame 2"),
        ("", [None, None], "frame 2"),
    ],
)
@pytest.mark.parametrize("wrapping", [("<im_start>", "<im_end>"), ("<frame_start>", "<frame_end>")])
def test_every_wrapping_and_timestamp_of_frames_is_read(tokenizer, wrapping, stamp, keys, caption):
    clip = video(tokenizer, [0.0, 0.5], stamp=stamp, wrapping=wrapping)
    (example,) = row_reader.read_row(by_hand.row(tokenizer, [(clip, [Turn("Q", "yes")])]), tokenizer)
    assert [picture.key for picture in example.pictures] == keys
    assert example.pictures[1].caption == caption


def test_an_image_has_its_detail_crops_at_their_corners(tokenizer):
    row = by_hand.row(tokenizer, [(images(tokenizer, (2, 3), (1, 1)), [Turn("Q", "yes")])])
    first, second = row_reader.read_row(row, tokenizer)[0].pictures
    assert (first.crop, first.key, first.caption, first.size) == (0, 1, "image 1", (3 * 266 + 112, 2 * 266 + 112))
    assert [(detail.crop, detail.x, detail.y) for detail in first.detail_crops] == [
        (1 + 3 * y + x, 266 * x, 266 * y) for y in range(2) for x in range(3)
    ]
    assert (second.crop, second.key, second.size) == (7, 2, (378, 378))
    assert [(detail.crop, detail.x, detail.y) for detail in second.detail_crops] == [(8, 0, 0)]


@pytest.mark.parametrize("crop_grid", [(1, 8), (8, 1), (2, 4), (3, 3), (4, 6), (24, 1)])
def test_crop_grids_of_every_shape_are_read(tokenizer, crop_grid):
    row = by_hand.row(tokenizer, [(images(tokenizer, crop_grid), [Turn("Q", "yes")])], tokens=8192)
    (image,) = row_reader.read_row(row, tokenizer)[0].pictures
    assert [detail.crop for detail in image.detail_crops] == list(range(1, crop_grid[0] * crop_grid[1] + 1))
    assert image.size == (266 * crop_grid[1] + 112, 266 * crop_grid[0] + 112)


def test_a_grid_that_does_not_match_its_crops_is_an_error(tokenizer):
    row = by_hand.row(tokenizer, [(images(tokenizer, (2, 2)), [Turn("Q", "yes")])])
    row["pooling"][row["pooling"] >= 4 * 729] = -1
    with pytest.raises(ValueError, match="image 1: a grid of 2 x 2 crops, but its tokens pool 3 crops"):
        row_reader.read_row(row, tokenizer)


def test_subtitles_have_their_times(tokenizer):
    def subtitles(after):
        row = by_hand.row(tokenizer, [(video(tokenizer, [0.0, 0.5], after), [Turn("Q", "yes"), Turn("R", "no")])])
        return [(one.start, one.stop, one.text) for one in row_reader.read_row(row, tokenizer)[0].subtitles]

    assert subtitles("subtitle\n0.0 - 2.5 Hello\n12.0 - 13.5 <b>\n") == [(0.0, 2.5, "Hello"), (12.0, 13.5, "<b>")]
    assert subtitles("subtitle\nAs it is:\n0.0 - 2.5 Hello") == [(None, None, "As it is:\n0.0 - 2.5 Hello")]
    assert subtitles("") == []


def test_crops_are_numbered_across_vision_shards(tokenizer):
    row = {
        "tokens": np.zeros(6, np.int32),
        "crops": np.zeros((4, 1, 1), np.uint8),
        "visual_slots": np.array([1, 6, 3, 4]),
        "pooling": np.array([[0, 1], [-1, -1], [2, 728], [729, 731]]),
    }
    assert row_reader.crops_by_token(row, 2).tolist() == [-1, 0, -1, 2, 3, -1]
    assert row_reader.crops_by_token(row).tolist() == [-1, 0, -1, 0, 1, -1]
    with pytest.raises(ValueError, match="3 vision shards do not divide 4 crops and 4 pooled tokens"):
        row_reader.crops_by_token(row, 3)


def test_replies_are_the_supervised_targets(tokenizer):
    row = by_hand.row(tokenizer, [(Visual(), [Turn("Q", "Two cars."), Turn("R", "Ja, ein Fahrrad 🚲")])])
    (example,) = row_reader.read_row(row, tokenizer)
    assert [part.name for part in example.branches] == ["root", "A", "B"]
    assert [(reply.branch, reply.text) for reply in example.replies] == [(1, "Two cars."), (2, "Ja, ein Fahrrad 🚲")]
    assert example.pictures == []
    row["loss_weights"][:] = 0  # as after a medium that could not be decoded
    assert row_reader.read_row(row, tokenizer)[0].replies == []


def test_unpatchify_gives_the_pixels_of_a_crop():
    y, x = np.mgrid[:378, :378]
    picture = np.stack([y % 251, x % 241, (y // 14 * 27 + x // 14) % 256], axis=-1).astype(np.uint8)
    crop = np.empty((729, 588), np.uint8)
    for patch in range(729):
        top, left = 14 * (patch // 27), 14 * (patch % 27)
        crop[patch] = picture[top : top + 14, left : left + 14].reshape(-1)
    np.testing.assert_array_equal(row_reader.unpatchify(crop), picture)
