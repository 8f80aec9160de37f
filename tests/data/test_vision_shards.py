import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmo2_jax.data.vision_shards import assign

FRAME = (1, 81)


def test_the_worked_example():
    units = [(9, 1162), (2, 392), (3, 518), FRAME, FRAME, FRAME, FRAME]
    assert assign(units, 2, 18, 4096) == [0, 1, 1, 1, 1, 1, 1]


def test_one_shard_is_the_whole_row():
    assert assign([(9, 1162), (9, 1162)], 1, 18, 2324) == [0, 0]
    assert assign([(9, 1162), (9, 1162)], 1, 17, 2324) is None
    assert assign([(9, 1162), (9, 1162)], 1, 18, 2323) is None
    assert assign([], 1, 0, 0) == assign([], 4, 8, 8) == []


def test_an_image_does_not_straddle_two_shards():
    assert assign([(9, 1162)], 2, 16, 4096) is None  # 8 crops a shard
    assert assign([(9, 1162)], 2, 18, 2048) is None  # 1,024 pooled tokens a shard
    assert assign([FRAME] * 16, 2, 16, 4096) == [0] * 8 + [1] * 8  # a video may, frame by frame and in order


def test_units_fit_or_not_in_any_order():
    units = [(3, 518), (4, 658), (5, 725), (5, 784), (6, 924)]  # the two of 5 crops are as large: crops are scarce
    orders = [[units[i] for i in order] for order in itertools.permutations(range(5))]
    placed = {tuple(sorted(zip(order, assign(order, 2, 24, 3840), strict=True))) for order in orders}
    assert len(placed) == 1


def test_shards_are_equal():
    with pytest.raises(ValueError, match="10 crops and 812 pooled tokens cannot be cut into 4 equal shards"):
        assign([FRAME], 4, 10, 812)


@given(st.lists(st.sampled_from([FRAME, (2, 392), (5, 725), (9, 1316)]), max_size=40), st.sampled_from([1, 2, 4]))
@settings(max_examples=50)
def test_no_shard_holds_more_than_its_part(units, shards):
    placed = assign(units, shards, 48, 4096)
    if placed is None:
        assert sum(c for c, _ in units) > 48 - 9 * shards or sum(p for _, p in units) > 4096 - 1316 * shards
        return
    assert len(placed) == len(units)
    for shard in range(shards):
        inside = [unit for unit, place in zip(units, placed, strict=True) if place == shard]
        assert sum(c for c, _ in inside) <= 48 // shards
        assert sum(p for _, p in inside) <= 4096 // shards
