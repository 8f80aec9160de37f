import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from molmo2_jax.ops.attention import mask
from molmo2_jax.viewer import mask_picture

# The picture in the module's docstring: a visual pair, two branches of two tokens, a second example of two.
UNTIL = np.array([6, 6, 4, 4, 6, 6, 8, 8], np.int32)
GROUP = np.array([1, 1, 0, 0, 0, 0, 0, 0], np.int32)


def dense(until, group):
    """(causal, by group alone), bool[S, S] each, by the rule of ops/attention/mask.py with and without groups."""
    index = np.arange(len(until), dtype=np.int32)
    everything = mask.Visibility(index, until, group)
    without = everything._replace(group=np.zeros_like(group))
    causal = np.asarray(mask.allowed(without, without))
    return causal, np.asarray(mask.allowed(everything, everything)) & ~causal


def test_the_docstrings_picture():
    causal, grouped = mask_picture.tile_counts(UNTIL, GROUP, 2)
    assert causal.tolist() == [[3, 0, 0, 0], [4, 3, 0, 0], [4, 0, 3, 0], [0, 0, 0, 3]]
    assert grouped.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@given(st.data(), st.integers(1, 30), st.integers(1, 9))
def test_tiles_count_the_pairs_of_the_dense_mask(data, length, block):
    until = np.array(data.draw(st.lists(st.integers(0, length), min_size=length, max_size=length)), np.int32)
    group = np.array(data.draw(st.lists(st.integers(0, 3), min_size=length, max_size=length)), np.int32)
    starts = range(0, length, block)
    for counts, pairs in zip(mask_picture.tile_counts(until, group, block), dense(until, group), strict=True):
        sums = [[pairs[q : q + block, k : k + block].sum() for k in starts] for q in starts]
        assert counts.tolist() == sums


def test_with_one_pair_a_pixel_the_picture_is_the_mask():
    counts = mask_picture.tile_counts(UNTIL, GROUP, 1)
    pixels = np.asarray(Image.open(io.BytesIO(mask_picture.png(mask_picture.mask_pixels(*counts, 8, 1)))))
    causal, grouped = dense(UNTIL, GROUP)
    assert pixels.shape == (8, 8, 4)
    for where, colour in ((causal, mask_picture.CAUSAL), (grouped, mask_picture.BIDIRECTIONAL)):
        assert (pixels[where] == (*colour, 255)).all()
    assert (pixels[~causal & ~grouped][:, 3] == 0).all()
    assert grouped.sum() == 1


def test_a_tile_is_as_opaque_as_it_is_full_and_never_invisible():
    length = 100
    until = np.full(length, length, np.int32)
    until[:50] = np.arange(50) + 1  # each of the first 50 tokens attends to itself alone
    counts = mask_picture.tile_counts(until, np.zeros(length, np.int32), 50)
    alpha = mask_picture.mask_pixels(*counts, length, 50)[..., 3].astype(int)
    assert alpha[0, 1] == 0 and alpha[1, 0] == 0
    assert mask_picture.FAINTEST < alpha[0, 0] < alpha[1, 1] < 255


def test_the_last_tile_may_be_short():
    until = np.full(5, 5, np.int32)
    group = np.ones(5, np.int32)  # everything allowed
    pixels = mask_picture.mask_pixels(*mask_picture.tile_counts(until, group, 2), 5, 2)
    assert pixels.shape == (3, 3, 4)
    assert (pixels[..., 3] == 255).all()


@pytest.mark.parametrize("groups", ["example", "frame"])
def test_a_long_row_needs_no_dense_mask(groups):
    length = 36_864  # 1.4 GB as a bool mask
    token = np.arange(length)
    frame = np.where(token % 90 < 83, 1 + token // 90, 0)
    group = frame if groups == "frame" else np.minimum(frame, 1)
    tracemalloc.start()
    causal, grouped = mask_picture.tile_counts(np.full(length, length), group, 48)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert causal.sum() == length * (length + 1) // 2
    sizes = np.bincount(group)[1:]
    assert grouped.sum() == (sizes * (sizes - 1) // 2).sum()
    assert peak < 64e6
