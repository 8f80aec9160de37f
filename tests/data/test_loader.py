import json
import threading
from pathlib import Path

import numpy as np
import pytest

from molmo2_jax.data import loader as loader_lib
from molmo2_jax.data.config import DatasetConfig, MixtureGroupConfig
from molmo2_jax.data.example import describe
from molmo2_jax.data.loader import Data, FailureRateError, Stream, merge_states, row_shape
from molmo2_jax.data.mixture import Schedule
from molmo2_jax.data.record import RecordError
from molmo2_jax.data.schema import FIELDS, RowShape, row_dims
from molmo2_jax.tools.row_view import example_bounds
from tests.data.loading import SMALL, same, take


def test_an_element_is_a_batch_of_the_schema(open_loader):
    element = next(open_loader(rows=(0, 1, 2)))
    shape = RowShape(tokens=700, crops=5, pooled=405, shards=1)
    assert set(element) == {*FIELDS, "failures", "examples", "counts"}
    for name, field in FIELDS.items():
        assert element[name].shape == (3, *row_dims(shape, name))
        assert element[name].dtype == field.dtype
    assert (element["loss_weights"].sum(axis=1) > 0).all()
    assert element["failures"] == []
    for row, examples in zip(element["visible_until"], element["examples"], strict=True):
        assert {(e["dataset"], e["failed"]) for e in examples} == {("records", None)}
        assert 1 <= len(examples) <= len(set(row.tolist()) - {0})


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


def test_a_state_of_other_rows_is_refused(open_loader):
    state = open_loader(rows=(0, 1)).get_state()
    with pytest.raises(ValueError, match=r"no rows \['2'\]; it has \['0', '1'\]"):
        open_loader(rows=(0, 2)).set_state(state)


def test_state_is_two_integers_a_row_beside_the_counts(open_loader):
    loader = open_loader(rows=(3,))
    assert loader.get_state() == {"rows": {"3": {"window": 0, "row": 0}}, "counts": {}}
    for _ in range(6):
        next(loader)
        state = loader.get_state()
        (cursor,) = state["rows"].values()
        seen = state["counts"]["records"]["examples"]
        assert 4 * cursor["window"] <= seen <= 4 * (cursor["window"] + 1)
    assert seen >= 6


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_give_the_same_bytes(open_loader, workers):
    here, there = open_loader(), open_loader(workers=workers, prefetch=3)
    for a, b in zip(take(here, 6), take(there, 6), strict=True):
        assert same(a, b) and a["counts"] == b["counts"]


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


@pytest.fixture
def stream(records, data_config, tokenizer, monkeypatch):
    monkeypatch.setattr(loader_lib.Tokenizer, "load", lambda source, vocab_size: tokenizer)

    def make(row=0, streams=1, **changes):
        data = Data(data_config(**{"records": [records], **SMALL, "pool": 5, **changes}))
        schedule = Schedule(data.rates, data.lengths, seed=0, streams=streams, pool=data.cfg.pool)
        return Stream(data, schedule, 0, row)

    return make


def test_every_record_comes_once_an_epoch_in_a_new_order(stream):
    orders = set()
    one = stream()
    for epoch in range(8):
        rows, unusable = one.window(epoch)
        names = [example.id for packed in rows for example in packed]
        assert sorted(names) == ["clip0", "clip1", "clip2", "text0", "text1"] and not unusable
        orders.add(tuple(names))
    assert len(orders) > 4


def test_all_streams_together_walk_a_dataset_once(stream):
    streams = [stream(row, streams=5, pool=1) for row in range(5)]
    seen = [e.id for w in range(4) for s in streams for packed in s.window(w)[0] for e in packed]
    assert len(seen) == 20 and all(seen.count(name) == 4 for name in set(seen)) and len(set(seen)) == 5


def test_an_example_is_drawn_anew_every_epoch(stream):
    one = stream()
    turns = lambda e: tuple(tuple(turn.user.tolist()) for turn in e.turns)  # noqa: E731
    epochs = [{e.id: turns(e) for packed in one.window(i)[0] for e in packed} for i in range(8)]
    assert len({epoch["clip0"] for epoch in epochs}) == 2  # its two branches in both orders


def test_datasets_are_drawn_at_their_rates(open_loader, write_records):
    ask = {"style": "text_sft", "user": "Hi.", "answer": "Ho."}
    files = {
        n: str(write_records(*({"id": f"{n}{i}", "messages": [ask]} for i in range(4)), name=f"{n}.jsonl"))
        for n in "abc"
    }
    groups = {
        "two": MixtureGroupConfig(3.0, {n: DatasetConfig(files[n], 1.0, 1.0 + (n == "b"), None, 0.0) for n in "ab"}),
        "one": MixtureGroupConfig(1.0, {"c": DatasetConfig(files["c"], None, 1.0, 0.75, 0.0)}),
    }
    loader = open_loader(rows=range(4), mixture=groups, pool=32, seq_len=64)
    elements = take(loader, 40)
    counts = elements[-1]["counts"]
    total = sum(one["examples"] for one in counts.values())
    shares = {name: one["examples"] / total for name, one in counts.items()}
    assert shares == pytest.approx({"a": 0.25, "b": 0.5, "c": 0.25}, abs=0.03)
    assert counts["c"]["loss_tokens"] == 3 * counts["c"]["examples"]  # "Ho", "." and EOS
    assert {0.75} <= set(np.unique(elements[0]["loss_weights"]).tolist())


def test_a_dataset_that_is_not_there(open_loader, records):
    here, gone = DatasetConfig(records, None, 1.0, None, 0.0), DatasetConfig("/gone", None, 1.0, None, 0.0)
    mixture = {"all": MixtureGroupConfig(1.0, {"here": here, "gone": gone})}
    with pytest.raises(RecordError, match="dataset gone of the mixture: /gone: not there; prepare it") as caught:
        open_loader(mixture=mixture)
    assert caught.value.reason == "no_file"
    element = next(open_loader(mixture=mixture, missing="report"))
    assert set(element["counts"]) == {"here"}
    with pytest.raises(RecordError, match="names no dataset that is there"):
        open_loader(mixture={"all": MixtureGroupConfig(1.0, {"gone": gone})}, missing="report")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_medium_costs_its_example_and_is_counted(open_loader, folder, workers):
    loader = open_loader(rows=(0,), max_failure_rate=1.0, workers=workers)
    (folder / "bikes.mp4").write_bytes(b"gone")
    elements = take(loader, 8)
    failures = [failure for element in elements for failure in element["failures"]]
    counts = elements[-1]["counts"]["records"]
    assert len(failures) == counts["failures"]["not_media"] > 3
    assert all("bikes.mp4" in failure and "record 'clip" in failure for failure in failures)
    shown = [e for element in elements for e in element["examples"][0]]
    rows = [(e["visible_until"][0], e["loss_weights"][0]) for e in elements]
    teaches = [weights[slice(*bounds)].any() for until, weights in rows for bounds in example_bounds(until)]
    assert teaches == [e["id"].startswith("text") for e in shown]
    assert {e["id"][:4]: e["failed"] for e in shown} == {"clip": "not_media", "text": None}
    assert not any(element["crops"].any() for element in elements)
    # The counts are in the state: a restart does not forget failures.
    assert loader.get_state()["counts"]["records"] == counts


def test_a_bad_record_costs_itself_and_is_counted(open_loader, write_records):
    ask = {"style": "text_sft", "user": "Hi.", "answer": "Ho."}
    good = [{"id": f"t{i}", "messages": [ask]} for i in range(8)]
    choice = {"style": "a_okvqa_mc", "question": "Which?", "options": ["a", "a"], "correct": 0}
    bad = {"id": "bad", "messages": [choice]}
    path = str(write_records(*good, bad))
    with pytest.raises(RecordError, match=r"record 'bad': .*twice"):
        open_loader(records=[path])
    element = take(open_loader(records=[path], rows=(0,), max_failure_rate=0.5, pool=9, seq_len=64), 4)[-1]
    counts = element["counts"]["records"]
    assert counts["failures"] == {"bad_options": counts["failures"]["bad_options"]} and counts["examples"] >= 8


def test_past_the_failure_rate_the_run_stops_with_the_list(open_loader, folder):
    loader = open_loader(rows=(0,), max_failure_rate=0.5)
    (folder / "bikes.mp4").write_bytes(b"gone")
    with pytest.raises(FailureRateError, match=r"max_failure_rate = 0.5 allows; the last of them:\n") as caught:
        take(loader, 20)
    # Three of five records fail; the rate is judged over a window (4 examples) at least.
    assert str(caught.value).count("bikes.mp4") >= 3


def test_a_mixture_of_nothing_usable_stops(open_loader, folder, write_records):
    loader = open_loader(
        records=[
            str(
                write_records(
                    {"id": "v", "video": "bikes.mp4", "messages": [{"style": "user_qa", "user": "?", "answer": "!"}]}
                )
            )
        ],
        max_failure_rate=0.9,
    )
    (folder / "bikes.mp4").unlink()
    with pytest.raises(FailureRateError, match=r"bikes\.mp4"):
        take(loader, 50)


def test_nothing_usable_stops_even_where_all_may_fail(open_loader, write_records):
    ask = {"style": "user_qa", "user": "?", "answer": "!"}
    path = write_records({"id": "v", "video": "none.mp4", "messages": [ask]}, name="bad.jsonl")
    loader = open_loader(records=[str(path)], max_failure_rate=1.0)
    with pytest.raises(FailureRateError, match=r"unusable, which leaves none; the last of them:\n.*none\.mp4"):
        next(loader)


def test_hosts_that_hold_the_same_rows_count_once(open_loader):
    states = []
    for rows in ((0, 1), (0, 1), (2, 3), (2, 3)):  # rows cut in two along `context`, which spans two hosts
        loader = open_loader(rows=rows)
        next(loader)
        states.append(loader.get_state())
    whole = open_loader(rows=range(4))
    next(whole)
    assert merge_states(states) == whole.get_state()


def test_dropped_messages_are_counted(open_loader):
    loader = open_loader(rows=(0,), seq_len=290)
    assert take(loader, 6)[-1]["counts"]["records"]["dropped"] > 0


def test_bad_records_are_named_before_the_first_element(open_loader, write_records, records):
    bad = write_records({"id": "x", "video": "none.mp4", "messages": []}, name="bad.jsonl")
    with pytest.raises(RecordError) as caught:
        open_loader(records=[str(bad), records], seq_len=100)
    text = str(caught.value)
    assert "bad.jsonl:1: record 'x': " in text and "none.mp4: no such file" in text
    assert text.count("a row has seq_len = 100") == 3
    with pytest.raises(RecordError, match="names no dataset that is there"):
        open_loader(records=[])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": ()}, "rows are distinct indices"),
        ({"rows": (1, 1)}, "rows are distinct indices"),
        ({"rows": (-1,)}, "rows are distinct indices"),
        ({"rows": (4,)}, "rows are distinct indices"),
        ({"pool": 0}, "pool is 0"),
        ({"max_failure_rate": 1.5}, "max_failure_rate is 1.5"),
    ],
)
def test_bad_settings_are_named(open_loader, changes, message):
    with pytest.raises(ValueError, match=message):
        open_loader(**changes)


def children():
    """Ids of the processes that this one has started and that are still there."""
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_closed_loader_ends_its_thread_and_its_processes(open_loader, workers):
    before, there = threading.active_count(), children()
    loader = open_loader(prefetch=2, workers=workers)
    next(loader)
    assert threading.active_count() == before + 1 + workers
    assert bool(children() - there) == bool(workers)
    loader.close()
    loader.close()
    assert threading.active_count() == before
    assert children() == there  # Python's own helpers of other tests may be among them
    with pytest.raises(ValueError, match="closed"):
        next(loader)


def test_an_example_in_several_rows_is_drawn_once(open_loader, write_records, folder):
    ask = {"style": "user_qa", "user": "What is this, and why is it here at all? " * 4, "answer": "It is."}
    path = str(write_records({"id": "v", "video": "bikes.mp4", "clip": [0, 1], "messages": [ask] * 16}))
    options = {"records": [path], "rows": (0,), "streams": 1, "pool": 1, "seq_len": 600, "overflow": "split"}
    elements = take(open_loader(**options), 3)
    assert [len(element["examples"][0]) for element in elements] == [1, 1, 1]
    counts = elements[-1]["counts"]["records"]
    assert counts["examples"] == 1 and counts["tokens"] > 3 * 300
    again = open_loader(**options, max_failure_rate=1.0)
    (folder / "bikes.mp4").write_bytes(b"gone")
    elements = take(again, 3)
    counts = elements[-1]["counts"]["records"]
    assert counts["failures"] == {"not_media": 1} and counts["examples"] == 0
    assert not any(element["loss_weights"].any() for element in elements)
