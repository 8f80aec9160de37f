import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.packing.pack import Size, pack
from data_pipelines.packing.schema import RowShape
from data_pipelines.packing.vision_shards import assign

SHAPE = RowShape(seq_len=100, crops=10, pooled=50)
LARGE = RowShape(seq_len=16_384, crops=128, pooled=16_384)


def size(tokens, crops=0, pooled=0):
    return Size(tokens, crops, pooled, ((crops, pooled),) if crops else ())


def frames(tokens, crops):
    return Size(tokens, crops, 81 * crops, ((1, 81),) * crops)


def totals(sizes, row):
    return tuple(np.array([sizes[i][:3] for i in row]).sum(axis=0))


def fits(sizes, row, shape, shards=1):
    tokens, crops, pooled = totals(sizes, row)
    units = [unit for i in row for unit in sizes[i].units]
    held = assign(units, shape, shards) is not None
    return tokens <= shape.seq_len and crops <= shape.crops and pooled <= shape.pooled and held


def test_the_worked_example():
    sizes = [size(20, 6), size(50, 5), size(10, 4), size(70, 4), size(40, 1)]
    assert pack(sizes, SHAPE) == [[0, 3], [1, 2, 4]]


@given(st.lists(st.builds(size, st.integers(1, 100), st.integers(0, 10), st.integers(0, 50)), max_size=25))
@settings(max_examples=50)
def test_every_example_is_packed_once_within_all_budgets(sizes):
    rows = pack(sizes, SHAPE)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert all(fits(sizes, row, SHAPE) for row in rows)
    assert rows == sorted(sorted(row) for row in rows)  # in the order given, not by size
    assert rows == pack(sizes, SHAPE)


SHARDED = st.lists(
    st.one_of(
        st.builds(frames, st.integers(1, 30), st.integers(0, 16)),
        st.builds(lambda n: Size(20 * n, 3 * n, 100 * n, ((3, 100),) * n), st.integers(1, 4)),
    ),
    max_size=25,
)


@given(SHARDED, st.sampled_from([2, 4]))
@settings(max_examples=50)
def test_rows_fit_their_vision_shards(sizes, shards):
    shape = RowShape(seq_len=100, crops=16, pooled=1600)
    rows = pack(sizes, shape, shards)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert all(fits(sizes, row, shape, shards) for row in rows)


def test_images_that_would_straddle_shards_get_rows_of_their_own():
    three = [Size(10, 3, 30, ((3, 30),)) for _ in range(4)]
    shape = RowShape(seq_len=100, crops=12, pooled=120)
    assert len(pack(three, shape)) == 1
    assert pack(three, shape, shards=3) == [[0, 1, 2], [3]]


def stream(rng, n):
    """Lengths like the fine-tuning mixture's: texts, images of 2 to 9 crops, videos of 2 to 128 frames."""
    text = rng.integers(50, 600, n)
    kinds = [np.zeros(n, int), rng.choice([2, 3, 5, 7, 9], n), rng.integers(2, 60, n), np.full(n, 128)]
    crops = np.choose(rng.choice(4, n, p=[0.1, 0.4, 0.4, 0.1]), kinds)
    return [size(int(t + (88 if c > 9 else 150) * c), int(c), int(81 * c)) for t, c in zip(text, crops, strict=True)]


def bound(sizes, shape):
    tokens, crops, _ = totals(sizes, range(len(sizes)))
    return max(tokens / shape.seq_len, crops / max(shape.crops, 1))


def test_rows_are_full_when_crops_are_scarce():
    sizes = stream(np.random.default_rng(0), 500)
    assert len(pack(sizes, LARGE)) <= bound(sizes, LARGE) + 2
    assert totals(sizes, range(500))[0] / 16_384 < 0.85 * bound(sizes, LARGE)


@pytest.mark.parametrize("high", [100, 600, 9000])  # hundreds, dozens and a few examples a row
def test_rows_are_full_when_tokens_are_scarce(high):
    rng = np.random.default_rng(1)
    sizes = [size(int(tokens), 1, 81) for tokens in rng.integers(high // 10, high, 1000)]
    assert len(pack(sizes, LARGE)) <= np.ceil(bound(sizes, LARGE)) * 1.005


def test_text_fills_what_videos_leave():
    sizes = [frames(11_500, 128)] * 20 + [size(500)] * 180
    rows = pack(sizes, LARGE)
    assert len(rows) == 20
    assert all(len(row) == 10 for row in rows)


def test_a_row_without_crops_takes_text():
    assert pack([size(60), size(30)], RowShape(seq_len=100, crops=0, pooled=0)) == [[0, 1]]
    assert pack([], SHAPE) == []


@pytest.mark.parametrize("big", [size(101), size(1, 11), size(1, 1, 51)])
def test_an_example_larger_than_a_row_is_named(big):
    with pytest.raises(ValueError, match=r"example 1: .* are more than a row, RowShape\(.*pooled=50\)$"):
        pack([size(1), big], SHAPE)


def test_an_image_larger_than_a_shard_is_named():
    shape = RowShape(seq_len=100, crops=16, pooled=160)
    with pytest.raises(ValueError, match=r"example 0: 10 tokens, 9 crops, 90 visual .* in 2 vision shards"):
        pack([size(10, 9, 90)], shape, shards=2)
