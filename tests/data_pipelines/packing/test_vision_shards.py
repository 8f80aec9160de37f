import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.packing.schema import RowShape
from data_pipelines.packing.vision_shards import assign, place

FRAME = (1, 81)


def shape(crops, pooled):
    return RowShape(seq_len=4096, crops=crops, pooled=pooled)


def test_the_worked_example():
    units = [(9, 1162), (2, 392), (3, 518), FRAME, FRAME, FRAME, FRAME]
    assert assign(units, shape(18, 4096), 2) == [0, 1, 1, 1, 1, 1, 1]
    images, film = place([units[:3], units[3:]], shape(18, 4096), 2)
    assert images.crop_slots.tolist() == [*range(9), 9, 10, 11, 12, 13]
    assert film.crop_slots.tolist() == [14, 15, 16, 17]
    assert images.shard_crops.tolist() == [*range(9), 0, 1, 2, 3, 4]
    assert film.shard_crops.tolist() == [5, 6, 7, 8]
    assert images.pooled_slots.tolist() == [*range(1162), *range(2048, 2048 + 392 + 518)]
    assert film.pooled_slots.tolist() == [*range(2048 + 910, 2048 + 910 + 4 * 81)]


def test_one_shard_is_the_whole_row():
    assert assign([(9, 1162), (9, 1162)], shape(18, 2324), 1) == [0, 0]
    assert assign([(9, 1162), (9, 1162)], shape(17, 2324), 1) is None
    assert assign([(9, 1162), (9, 1162)], shape(18, 2323), 1) is None
    assert assign([], shape(0, 0), 1) == assign([], shape(8, 8), 4) == []


def test_an_image_does_not_straddle_two_shards():
    assert assign([(9, 1162)], shape(16, 4096), 2) is None  # 8 crops per shard
    assert assign([(9, 1162)], shape(18, 2048), 2) is None  # 1,024 visual tokens per shard
    assert assign([FRAME] * 16, shape(16, 4096), 2) == [0] * 8 + [1] * 8  # a video may, its frames in order


def test_units_fit_or_not_in_any_order():
    units = [(3, 518), (4, 658), (5, 725), (5, 784), (6, 924)]  # the two of 5 crops are as large: crops are scarce
    orders = [[units[i] for i in order] for order in itertools.permutations(range(5))]
    assignments = {tuple(sorted(zip(order, assign(order, shape(24, 3840), 2), strict=True))) for order in orders}
    assert len(assignments) == 1


def test_shards_are_equal():
    with pytest.raises(ValueError, match="10 crops and 812 visual tokens cannot be divided into 4 equal shards"):
        assign([FRAME], shape(10, 812), 4)


@given(st.lists(st.sampled_from([FRAME, (2, 392), (5, 725), (9, 1316)]), max_size=40), st.sampled_from([1, 2, 4]))
@settings(max_examples=50)
def test_no_shard_holds_more_than_its_part(units, shards):
    assigned = assign(units, shape(48, 4096), shards)
    if assigned is None:
        assert sum(c for c, _ in units) > 48 - 9 * shards or sum(p for _, p in units) > 4096 - 1316 * shards
        return
    assert len(assigned) == len(units)
    for shard in range(shards):
        inside = [unit for unit, own in zip(units, assigned, strict=True) if own == shard]
        assert sum(c for c, _ in inside) <= 48 // shards
        assert sum(p for _, p in inside) <= 4096 // shards


EXAMPLES = st.lists(st.lists(st.sampled_from([FRAME, (2, 392), (5, 725)]), max_size=4), max_size=5)


@given(EXAMPLES, st.sampled_from([1, 2, 4]))
@settings(max_examples=50)
def test_no_two_examples_share_a_slot_and_a_unit_stays_in_one_shard(examples, shards):
    units = [unit for example in examples for unit in example]
    row = shape(96, 16_384)
    if assign(units, row, shards) is None:
        with pytest.raises(ValueError, match="do not fit a row of"):
            place(examples, row, shards)
        return
    placements = place(examples, row, shards)
    for column, slots in enumerate([[p.crop_slots for p in placements], [p.pooled_slots for p in placements]]):
        budget = (row.crops, row.pooled)[column]
        used = [slot for example in slots for slot in example.tolist()]
        assert len(set(used)) == len(used) == sum(unit[column] for unit in units)
        assert all(0 <= slot < budget for slot in used)
        for example, own in zip(examples, slots, strict=True):
            ends = np.cumsum([unit[column] for unit in example])
            for part in np.split(own, ends[:-1]) if example else []:
                assert len(set((part // (budget // shards)).tolist())) == 1
    for placement in placements:
        assert placement.shard_crops.tolist() == (placement.crop_slots % (row.crops // shards)).tolist()


def test_text_alone_needs_no_slots():
    assert place([], shape(0, 0), 1) == []
    (text,) = place([[]], shape(0, 0), 1)
    assert [slots.size for slots in text] == [0, 0, 0]


def test_examples_larger_than_a_row_are_refused():
    with pytest.raises(ValueError, match=r"examples of 18 crops and 2324 visual tokens do not fit a row of .*crops=17"):
        place([[(9, 1162)], [(9, 1162)]], shape(17, 4096), 1)
