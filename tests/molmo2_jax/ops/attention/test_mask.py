"""The mask rule: literal rows, random trees, and classes of tiles."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings

from molmo2_jax.ops.attention import mask
from tests.molmo2_jax.ops.attention import trees


def digits(until, group):
    vis = mask.row_visibility(jnp.array([until], jnp.int32), jnp.array([group], jnp.int32))
    return ["".join(".1"[int(x)] for x in row) for row in mask.allowed(vis, vis)[0]]


def test_the_picture_in_the_docstring():
    assert digits([6, 6, 6, 5, 5, 6, 8, 8], [0, 1, 1, 0, 0, 0, 0, 0]) == [
        "1.......",
        "111.....",
        "111.....",
        "1111....",
        "11111...",
        "111..1..",
        "......1.",
        "......11",
    ]


def test_padding_sees_nothing_and_is_not_seen():
    assert digits([2, 2, 0, 0], [0, 0, 0, 0]) == ["1...", "11..", "....", "...."]


def test_a_second_image_group_of_the_same_example_is_causal_to_the_first():
    assert digits([4, 4, 4, 4], [1, 1, 2, 2]) == ["11..", "11..", "1111", "1111"]


@given(trees.rows())
@settings(deadline=None, max_examples=60)
def test_three_integers_give_the_mask_of_the_trees(rows):
    vis = mask.row_visibility(jnp.asarray(rows.until), jnp.asarray(rows.group))
    np.testing.assert_array_equal(mask.allowed(vis, vis), rows.allowed)


@given(trees.rows())
@settings(deadline=None, max_examples=60)
def test_tile_classes_name_exactly_the_tiles_with_work(rows):
    vis = mask.row_visibility(jnp.asarray(rows.until), jnp.asarray(rows.group))
    for block_q, block_k in ((8, 8), (4, 16), (16, 4)):
        classes = np.asarray(mask.tile_classes(vis, vis, block_q, block_k))
        B, S, _ = rows.allowed.shape
        tiles = rows.allowed.reshape(B, S // block_q, block_q, S // block_k, block_k)
        np.testing.assert_array_equal(classes != mask.EMPTY, tiles.any((2, 4)))
        assert tiles.all((2, 4))[classes == mask.FULL].all()


def test_a_tile_under_the_diagonal_and_one_inside_an_image_are_full():
    causal = mask.row_visibility(jnp.full((1, 8), 8, jnp.int32), jnp.zeros((1, 8), jnp.int32))
    assert mask.tile_classes(causal, causal, 4, 4)[0].tolist() == [
        [mask.PARTIAL, mask.EMPTY],
        [mask.FULL, mask.PARTIAL],
    ]
    image = mask.row_visibility(jnp.full((1, 8), 8, jnp.int32), jnp.ones((1, 8), jnp.int32))
    assert (mask.tile_classes(image, image, 4, 4) == mask.FULL).all()


def test_padded_queries_and_keys_have_no_allowed_pair():
    vis = mask.row_visibility(jnp.full((1, 3), 3, jnp.int32), jnp.ones((1, 3), jnp.int32))
    padded = mask.pad_queries(vis, 8)
    allowed = mask.allowed(padded, mask.pad_keys(vis, 8))[0]
    assert allowed[:3, :3].all() and not allowed[3:].any() and not allowed[:, 3:].any()
    assert mask.tile_classes(padded, padded, 4, 4)[0].tolist() == [[mask.PARTIAL, mask.EMPTY], [mask.EMPTY, mask.EMPTY]]
