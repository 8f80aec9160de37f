import json
import threading

import numpy as np
import pytest

from molmo2_jax.data import loader as loader_lib
from molmo2_jax.data.example import describe
from molmo2_jax.data.loader import FailureRateError, make_loader, row_shape
from molmo2_jax.data.record import RecordError
from molmo2_jax.data.schema import FIELDS, RowShape, row_dims

SMALL = {"seq_len": 700, "crops": 5, "pooled": 405, "max_frames": 3, "pool": 4}


@pytest.fixture
def records(write_records):
    """Five records: three videos with two branches each, two texts."""
    clips = [(0, 1), (2, 3), (6, 7.5)]
    ask = [{"style": "user_qa", "user": f"What is {x}?", "answer": f"It is {x}."} for x in ("this", "that")]
    videos = [
        {"id": f"clip{i}", "video": "bikes.mp4", "clip": list(clip), "messages": ask} for i, clip in enumerate(clips)
    ]
    texts = [{"id": f"text{i}", "messages": [{**ask[0], "user": f"Tell me {i}."}]} for i in range(2)]
    return str(write_records(*videos, *texts))


@pytest.fixture
def open_loader(records, data_config, tokenizer, monkeypatch):
    """Make loaders that are closed at the end of the test; their threads end with them."""
    # The tokenizer is the real one; it is only not read from disk once per loader.
    monkeypatch.setattr(loader_lib.Tokenizer, "load", lambda source, vocab_size: tokenizer)
    before = threading.active_count()
    opened = []

    def make(rows=(0, 1), seed=0, **changes):
        cfg = data_config(**{"records": [records], **SMALL, **changes})
        opened.append(make_loader(cfg, seed=seed, rows=rows))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
    assert threading.active_count() == before


def same(a, b):
    """Byte-identical elements."""
    return a.keys() == b.keys() and all(
        a[k].tobytes() == b[k].tobytes() if k in FIELDS else a[k] == b[k] for k in a.keys() - {"counts"}
    )


def take(loader, n):
    return [next(loader) for _ in range(n)]


def test_an_element_is_a_batch_of_the_schema(open_loader):
    element = next(open_loader(rows=(0, 1, 2)))
    shape = RowShape(tokens=700, crops=5, pooled=405, shards=1)
    assert set(element) == {*FIELDS, "failures", "counts"}
    for name, field in FIELDS.items():
        assert element[name].shape == (3, *row_dims(shape, name))
        assert element[name].dtype == field.dtype
    assert (element["loss_weights"].sum(axis=1) > 0).all()
    assert element["failures"] == []


def test_row_shape_is_the_config_s(data_config):
    assert row_shape(data_config(seq_len=7, crops=2, pooled=3)) == RowShape(tokens=7, crops=2, pooled=3, shards=1)


def test_rows_do_not_depend_on_which_others_a_host_owns(open_loader):
    together = take(open_loader(rows=(0, 1, 2)), 4)
    alone = take(open_loader(rows=(1,)), 4)
    swapped = take(open_loader(rows=(2, 1)), 4)
    for a, b, c in zip(together, alone, swapped, strict=True):
        for name in FIELDS:
            np.testing.assert_array_equal(a[name][1:2], b[name])
            np.testing.assert_array_equal(a[name][[2, 1]], c[name])


def test_streams_and_seeds_differ(open_loader):
    element = next(open_loader())
    assert (element["tokens"][0] != element["tokens"][1]).any()
    other = next(open_loader(seed=1))
    assert (element["tokens"] != other["tokens"]).any()
    assert same(element, next(open_loader()))


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_restored_loader_goes_on_as_if_never_stopped(open_loader, prefetch):
    straight = open_loader(prefetch=prefetch)
    states, elements = [straight.get_state()], []
    for _ in range(7):
        elements.append(next(straight))
        states.append(json.loads(json.dumps(straight.get_state())))
    for stop in (0, 1, 3, 5):
        resumed = open_loader(prefetch=prefetch)
        resumed.set_state(states[stop])
        for expected, got in zip(elements[stop:], take(resumed, 7 - stop), strict=True):
            assert same(expected, got)
            assert expected["counts"] == got["counts"]
        assert resumed.get_state() == straight.get_state()


def test_a_running_loader_can_be_set_back(open_loader):
    loader = open_loader()
    state = loader.get_state()
    first = take(loader, 4)
    loader.set_state(state)
    assert all(same(a, b) for a, b in zip(first, take(loader, 4), strict=True))


def test_a_state_serves_another_number_of_hosts(open_loader):
    one = open_loader(rows=(0, 1))
    take(one, 3)
    state = one.get_state()
    expected = take(one, 2)
    for row in (0, 1):
        half = open_loader(rows=(row,))
        half.set_state(state)
        for a, b in zip(expected, take(half, 2), strict=True):
            np.testing.assert_array_equal(a["tokens"][row], b["tokens"][0])
    with pytest.raises(ValueError, match=r"no rows \[2\]; it has \['0', '1'\]"):
        open_loader(rows=(0, 2)).set_state(state)


def test_state_is_a_few_integers_a_row(open_loader):
    loader = open_loader(rows=(3,))
    assert loader.get_state() == {"rows": {"3": {"window": 0, "row": 0, "examples": 0, "failed": 0, "dropped": 0}}}
    total = 0
    for _ in range(6):
        next(loader)
        (cursor,) = loader.get_state()["rows"].values()
        total = cursor["examples"]
        assert cursor["window"] * 4 <= total <= (cursor["window"] + 1) * 4
    assert total >= 6


def test_restoring_describes_one_window_and_decodes_nothing(open_loader, monkeypatch):
    loader = open_loader(rows=(0,), prefetch=0)
    take(loader, 7)
    state = loader.get_state()
    again = open_loader(rows=(0,), prefetch=0)
    again.set_state(state)
    drawn = []
    monkeypatch.setattr(loader_lib, "describe", lambda *args: drawn.append(args) or describe(*args))
    next(again)
    assert len(drawn) == 4


def test_every_record_comes_once_an_epoch_in_an_order_of_its_own(records, tokenizer, data_config):
    cfg = data_config(records=[records], **{**SMALL, "pool": 5})
    loaded = loader_lib.load_records(records)
    orders = set()
    for row in range(3):
        stream = loader_lib.Stream(loaded, tokenizer, cfg, 0, row)
        for epoch in range(3):
            names = [example.id for packed in stream.window(epoch) for example in packed]
            assert sorted(names) == ["clip0", "clip1", "clip2", "text0", "text1"]
            orders.add(tuple(names))
    assert len(orders) > 6


def test_a_permutation_shares_no_randomness_with_a_draw(records, tokenizer, data_config):
    stream = loader_lib.Stream([], tokenizer, data_config(), 0, 0)
    order, draw = stream._generator(loader_lib.PERMUTATION, 3), stream._generator(loader_lib.DRAW, 3, 0)
    assert order.integers(2**60) != draw.integers(2**60)


def test_an_example_is_drawn_anew_every_epoch(records, tokenizer, data_config):
    cfg = data_config(records=[records], **{**SMALL, "pool": 5})
    stream = loader_lib.Stream(loader_lib.load_records(records), tokenizer, cfg, 0, 0)
    epochs = [{e.id: e.tokens.tolist() for packed in stream.window(i) for e in packed} for i in range(8)]
    assert len({tuple(epoch["clip0"]) for epoch in epochs}) == 2  # its two branches in both orders


def test_a_broken_medium_costs_its_example_and_is_counted(open_loader, folder):
    loader = open_loader(rows=(0,), max_failure_rate=1.0)
    (folder / "bikes.mp4").write_bytes(b"gone")
    elements = take(loader, 8)
    failures = [failure for element in elements for failure in element["failures"]]
    counts = elements[-1]["counts"]
    assert len(failures) == counts["failed"] > 3
    assert {failure.partition(": ")[0] for failure in failures} == {"clip0", "clip1", "clip2"}
    assert all("bikes.mp4" in failure for failure in failures)
    assert sum(element["loss_weights"].sum() for element in elements) > 0  # the texts
    assert counts["failed"] < counts["examples"]
    # The counts are in the state: a restart does not forget failures.
    (cursor,) = loader.get_state()["rows"].values()
    assert {key: cursor[key] for key in counts} == counts


def test_past_the_failure_rate_the_run_stops_with_the_list(open_loader, folder):
    loader = open_loader(rows=(0,), max_failure_rate=0.5)
    (folder / "bikes.mp4").write_bytes(b"gone")
    with pytest.raises(FailureRateError, match=r"max_failure_rate = 0.5 allows:\n  clip\d: .*bikes.mp4") as caught:
        take(loader, 20)
    # Three of five records fail; the rate is judged over a window (4 examples) at least.
    assert len(str(caught.value).splitlines()) >= 4


def test_dropped_messages_are_counted(open_loader):
    loader = open_loader(rows=(0,), seq_len=290)
    assert take(loader, 6)[-1]["counts"]["dropped"] > 0


def test_bad_records_are_named_before_the_first_element(open_loader, write_records, records):
    bad = write_records({"id": "x", "video": "none.mp4", "messages": []}, name="bad.jsonl")
    with pytest.raises(RecordError) as caught:
        open_loader(records=[str(bad), records], seq_len=100)
    text = str(caught.value)
    assert "bad.jsonl:1: record 'x': none.mp4: no such file" in text
    assert text.count("a row has seq_len = 100") == 3
    with pytest.raises(RecordError, match="records names no file"):
        open_loader(records=[])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ()}, "rows are distinct indices"),
        ({"rows": (1, 1)}, "rows are distinct indices"),
        ({"rows": (-1,)}, "rows are distinct indices"),
        ({"pool": 0}, "pool is 0"),
        ({"max_failure_rate": 1.5}, "max_failure_rate is 1.5"),
    ],
)
def test_bad_settings_are_named(open_loader, changes, message):
    with pytest.raises(ValueError, match=message):
        open_loader(**changes)


def test_a_closed_loader_ends_its_thread(open_loader):
    before = threading.active_count()
    loader = open_loader(prefetch=2)
    next(loader)
    assert threading.active_count() == before + 1
    loader.close()
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="closed"):
        next(loader)
