from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo2_jax.data.example import Example, VideoPlan
from molmo2_jax.data.pack import pack
from molmo2_jax.data.schema import RowShape

SHAPE = RowShape(tokens=100, crops=10, pooled=50)


def sized(name, tokens, crops=0, pooled=0):
    """An example of which only the size matters."""
    ints = np.zeros(tokens, np.int32)
    media = (VideoPlan(Path("none.mp4"), (0.0,) * crops),) if crops else ()
    return Example(
        tokens=ints,
        targets=ints,
        loss_weights=ints.astype(np.float32),
        positions=ints,
        visible_until=ints,
        image_group=ints,
        visual_slots=np.zeros(pooled, np.int32),
        id=str(name),
        where=f"a.jsonl:1: record '{name}'",
        media=media,
        dropped=0,
    )


def names(rows):
    return [[example.id for example in row] for row in rows]


def sizes(row):
    return [sum(sizes) for sizes in zip(*((e.n_tokens, e.n_crops, e.n_pooled) for e in row), strict=True)]


examples = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 10), st.integers(0, 50)), max_size=25)


@given(examples)
def test_every_example_is_placed_once_within_all_budgets(drawn):
    given = [sized(i, *size) for i, size in enumerate(drawn)]
    rows = pack(given, SHAPE)
    assert sorted(int(name) for row in names(rows) for name in row) == list(range(len(given)))
    for row in rows:
        tokens, crops, pooled = sizes(row)
        assert (tokens <= 100, crops <= 10, pooled <= 50) == (True, True, True)


@given(examples)
def test_no_two_rows_could_be_one(drawn):
    rows = pack([sized(i, *size) for i, size in enumerate(drawn)], SHAPE)
    for i, one in enumerate(rows):
        for other in rows[:i]:
            tokens, crops, pooled = sizes(one + other)
            assert tokens > 100 or crops > 10 or pooled > 50


def test_rows_and_examples_keep_the_order_given():
    rows = pack([sized(n, n) for n in (60, 30, 50, 40, 20)], SHAPE)
    assert names(rows) == [["60", "40"], ["30", "50", "20"]]


def test_rows_fill_up():
    rng = np.random.default_rng(0)
    drawn = [sized(i, int(rng.integers(3, 40)), int(rng.integers(0, 4))) for i in range(300)]
    rows = pack(drawn, SHAPE)
    bound = max(sum(e.n_tokens for e in drawn) / 100, sum(e.n_crops for e in drawn) / 10)
    assert len(rows) <= 1.03 * bound + 1


def test_a_row_without_crops_takes_text():
    rows = pack([sized("a", 60), sized("b", 30)], RowShape(tokens=100, crops=0, pooled=0))
    assert names(rows) == [["a", "b"]]


@pytest.mark.parametrize("size", [(101, 0, 0), (1, 11, 0), (1, 0, 51)])
def test_an_example_larger_than_a_row_is_named(size):
    with pytest.raises(ValueError, match=r"a.jsonl:1: record 'big': \(tokens, crops, pooled\) = .* is more than a row"):
        pack([sized("small", 1), sized("big", *size)], SHAPE)
