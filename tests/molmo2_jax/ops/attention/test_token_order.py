"""Token orders: which device holds which tokens, and rows in that order."""

import numpy as np
import pytest

from data_pipelines.packing.schema import FIELDS, RowShape, empty_row
from molmo2_jax.ops.attention.token_order import TOKEN_ORDERS, arrange, row_index


def indices(order, length, shards):
    return row_index(order, np.arange(length), length, shards).tolist()


def test_the_picture_in_the_docstring():
    assert indices("contiguous", 8, 2) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert indices("zigzag", 8, 2) == [0, 1, 6, 7, 2, 3, 4, 5]


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_zigzag_gives_every_device_the_same_share_of_a_causal_mask(shards):
    index = np.array(indices("zigzag", 48, shards))
    assert sorted(index) == list(range(48))
    pairs = (index + 1).reshape(shards, -1).sum(1)  # keys that each token sees
    assert set(pairs) == {48 * 49 // 2 // shards}


def test_one_device_has_one_order():
    assert indices("zigzag", 7, 1) == list(range(7))


def test_lengths_that_do_not_divide_and_unknown_orders_are_named():
    with pytest.raises(ValueError, match="needs 8 equal chunks; they do not divide 20 tokens"):
        indices("zigzag", 20, 4)
    with pytest.raises(ValueError, match="token_order 'spiral' is unknown; the choices are"):
        indices("spiral", 20, 4)


@pytest.mark.parametrize("order", TOKEN_ORDERS)
def test_arrange_permutes_token_fields_and_visual_slots(order):
    shape = RowShape(seq_len=16, crops=2, pooled=6)
    rng = np.random.default_rng(0)
    rows = {name: np.stack([a] * 2) for name, a in empty_row(shape).items()}
    for name, field in FIELDS.items():
        if name not in ("visual_slots", "crops"):
            rows[name][:] = rng.integers(1, 100, rows[name].shape).astype(field.dtype)
    rows["visual_slots"][:, :4] = [[3, 4, 9, 15], [0, 1, 2, 12]]
    arranged = arrange(rows, order, 2)
    index = np.array(indices(order, 16, 2))
    assert arranged.keys() == rows.keys()
    for name, field in FIELDS.items():
        assert arranged[name].dtype == field.dtype
        want = rows[name][:, index] if field.dims == "S" else rows[name]
        if name != "visual_slots":
            np.testing.assert_array_equal(arranged[name], want)
    used = np.take_along_axis(arranged["tokens"], arranged["visual_slots"][:, :4], 1)
    np.testing.assert_array_equal(used, np.take_along_axis(rows["tokens"], rows["visual_slots"][:, :4], 1))
    assert (arranged["visual_slots"][:, 4:] == 16).all()
