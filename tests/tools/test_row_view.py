import math

import numpy as np
import pytest

from molmo2_jax.data import image as image_lib
from molmo2_jax.data import tree
from molmo2_jax.data.layout import image_tokens, no_visual_tokens, video_tokens
from molmo2_jax.data.schema import RowShape, empty_row
from molmo2_jax.tools import row_view


def names(until, start=0):
    parts = row_view.branches(np.array(until), start, len(until))
    return [(part.name, part.start, part.stop, part.depth, part.parent) for part in parts]


def test_examples_follow_each_other_up_to_the_padding():
    assert row_view.example_bounds(np.array([4, 2, 4, 4, 6, 6, 0])) == [(0, 4), (4, 6)]
    assert row_view.example_bounds(np.array([2, 2])) == [(0, 2)]
    assert row_view.example_bounds(np.zeros(3, np.int32)) == []


@pytest.mark.parametrize("until", [[3, 3], [2, 2, 1, 0], [2, 3, 3]])
def test_what_no_packer_writes_is_refused(until):
    with pytest.raises(ValueError, match="begins an example"):
        row_view.example_bounds(np.array(until))


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
    assert [row_view.letters(n) for n in (1, 2, 26, 27, 52, 53, 702, 703)] == [
        "A",
        "B",
        "Z",
        "AA",
        "AZ",
        "BA",
        "ZZ",
        "AAA",
    ]


def lay_out(tok, visual, *answers):
    """A row of one example with a question and each of `answers`, the visual tokens in crops of their own order."""
    turns = [tree.Turn(tree.ROOT, tok.encode(f"Q{n}?"), tok.encode(text), None) for n, text in enumerate(answers)]
    arrays = tree.lay_out(visual, turns, bos=tok.bos_id, eos=tok.eos_id, length_weight=4.0, never_targets=[])
    length, slots = len(arrays.tokens), len(arrays.visual_slots)
    row = empty_row(RowShape(tokens=length + 3, crops=0, pooled=slots + 2, shards=1))
    for name in ("tokens", "targets", "loss_weights", "positions", "visible_until", "image_group"):
        row[name][:length] = getattr(arrays, name)
    row["visual_slots"][:slots] = arrays.visual_slots
    return row


def test_frames_have_their_timestamps(tokenizer):
    row = lay_out(tokenizer, video_tokens([0.0, 0.5, 12.5], tokenizer, "im", "example"), "yes", "no")
    row["pooling"][: 3 * 81] = image_lib.frame_pooling(3)
    (example,) = row_view.read_row(row, tokenizer)
    assert [(v.crop, v.key, v.caption) for v in example.views] == [
        (0, 0.0, "0.0 s"),
        (1, 0.5, "0.5 s"),
        (2, 12.5, "12.5 s"),
    ]


@pytest.mark.parametrize("wrapping", ["im", "frame"])
def test_either_wrapping_of_frames_is_known(tokenizer, wrapping):
    row = lay_out(tokenizer, video_tokens([0.0, 0.5], tokenizer, wrapping, "frame"), "yes")
    row["pooling"][: 2 * 81] = image_lib.frame_pooling(2)
    assert [view.key for view in row_view.read_row(row, tokenizer)[0].views] == [0.0, 0.5]


def test_an_image_is_its_overview_and_its_tiles(tokenizer):
    tiling = image_lib.choose_tiling(378, 1000, 4)
    row = lay_out(tokenizer, image_tokens(tiling, tokenizer), "yes")
    pooling = image_lib.image_pooling(tiling)
    row["pooling"][: len(pooling)] = pooling
    views = row_view.read_row(row, tokenizer)[0].views
    assert [(v.key, v.caption) for v in views[:2]] == [(1, "image 1"), (None, "image 1, tile 1")]
    assert sorted(view.crop for view in views) == list(range(math.prod(tiling) + 1))


def test_answers_are_the_learned_targets(tokenizer):
    row = lay_out(tokenizer, no_visual_tokens(), "Two cars.", "Ja, ein Fahrrad 🚲")
    (example,) = row_view.read_row(row, tokenizer)
    assert [part.name for part in example.branches] == ["root", "A", "B"]
    assert [(reply.branch, reply.text) for reply in example.replies] == [(1, "Two cars."), (2, "Ja, ein Fahrrad 🚲")]
    assert example.views == []
    row["loss_weights"][:] = 0  # as after a medium that could not be decoded
    assert row_view.read_row(row, tokenizer)[0].replies == []


def test_patches_go_back_to_their_places():
    y, x = np.mgrid[:378, :378]
    picture = np.stack([y % 251, x % 241, (y // 14 * 27 + x // 14) % 256], axis=-1).astype(np.uint8)
    crop = np.empty((729, 588), np.uint8)
    for patch in range(729):
        top, left = 14 * (patch // 27), 14 * (patch % 27)
        crop[patch] = picture[top : top + 14, left : left + 14].reshape(-1)
    np.testing.assert_array_equal(row_view.crop_picture(crop), picture)
