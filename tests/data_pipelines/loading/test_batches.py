"""Batches: the rows of the streams with their arrays, failures and counts."""

import numpy as np
import pytest

from data_pipelines.loading.batches import FailureRateError, RowBatches, RowBuilder
from data_pipelines.loading.data import Data
from data_pipelines.loading.decode_workers import DecodePool
from data_pipelines.loading.draws import DrawSchedule
from data_pipelines.loading.mixture import DatasetConfig, MixtureGroup
from data_pipelines.loading.stream import Stream
from data_pipelines.packing.schema import FIELDS, RowShape, row_dims
from molmo2_jax.viewer.row_reader import example_bounds
from tests.data_pipelines.loading.loaders import same, take


def test_an_element_is_a_batch_of_the_schema(open_loader):
    element = next(open_loader(rows=(0, 1, 2)))
    shape = RowShape(seq_len=700, crops=5, pooled=405)
    assert set(element) == {*FIELDS, "failures", "examples", "counts"}
    for name, field in FIELDS.items():
        assert element[name].shape == (3, *row_dims(shape, name))
        assert element[name].dtype == field.dtype
    assert (element["loss_weights"].sum(axis=1) > 0).all()
    assert element["failures"] == []
    for row, examples in zip(element["visible_until"], element["examples"], strict=True):
        assert {(e["dataset"], e["failed"]) for e in examples} == {("records", None)}
        assert 1 <= len(examples) <= len(set(row.tolist()) - {0})


def test_a_row_does_not_depend_on_the_other_rows_of_its_host(open_loader):
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


def test_the_config_s_row_is_the_shape_of_a_batch(open_loader):
    element = next(open_loader(seq_len=900, crops=6, pooled=500))
    assert element["tokens"].shape == (2, 900) and element["pooling"].shape == (2, 500, 9)
    assert element["crops"].shape == (2, 6, 729, 588)


@pytest.fixture
def batches(open_data, small_config):
    """RowBatches of row 0, which decode in this process and prepare nothing ahead."""

    def make(**changes):
        data, config = open_data(**changes), small_config(**changes)
        schedule = DrawSchedule(data.rates, data.lengths, seed=0, streams=4, pool=config.loader.pool)
        stream = Stream(0, schedule, lambda draw: data.describe(draw, 0), config.row, 1)
        builder = RowBuilder(data.tok, config.row, 1, config.token_weights.length_weight)
        return RowBatches([stream], builder, config.loader, DecodePool(0), None, records=5)

    return make


def test_restoring_describes_one_window_and_decodes_nothing(batches, monkeypatch):
    straight = batches()
    take(straight, 7)
    expected = straight.get_state(), next(straight)
    again = batches()
    drawn, decoded = [], []
    original, submit = Data.describe, DecodePool.submit
    monkeypatch.setattr(Data, "describe", lambda *args: drawn.append(args) or original(*args))
    monkeypatch.setattr(DecodePool, "submit", lambda *args: decoded.append(args) or submit(*args))
    again.set_state(expected[0])
    assert not drawn and not decoded
    assert same(next(again), expected[1])
    assert (len(drawn), len(decoded)) == (4, 1)  # the window that the state is in, and the batch itself


def test_datasets_are_drawn_at_their_rates(open_loader, write_records):
    ask = {"style": "text_sft", "user": "Hi.", "answer": "Ho."}
    files = {
        n: str(write_records(*({"id": f"{n}{i}", "messages": [ask]} for i in range(4)), name=f"{n}.jsonl"))
        for n in "abc"
    }
    groups = {
        "two": MixtureGroup(3.0, {n: DatasetConfig(files[n], 1.0, 1.0 + (n == "b"), None, 0.0) for n in "ab"}),
        "one": MixtureGroup(1.0, {"c": DatasetConfig(files["c"], None, 1.0, 0.75, 0.0)}),
    }
    loader = open_loader(rows=range(4), groups=groups, pool=32, seq_len=64)
    elements = take(loader, 40)
    counts = elements[-1]["counts"]
    total = sum(one["examples"] for one in counts.values())
    shares = {name: one["examples"] / total for name, one in counts.items()}
    assert shares == pytest.approx({"a": 0.25, "b": 0.5, "c": 0.25}, abs=0.03)
    assert counts["c"]["loss_tokens"] == 3 * counts["c"]["examples"]  # "Ho", "." and EOS
    assert {0.75} <= set(np.unique(elements[0]["loss_weights"]).tolist())


def test_missing_datasets_are_not_drawn(open_loader, records):
    here, gone = DatasetConfig(records, None, 1.0, None, 0.0), DatasetConfig("/gone", None, 1.0, None, 0.0)
    groups = {"all": MixtureGroup(1.0, {"here": here, "gone": gone})}
    assert set(next(open_loader(groups=groups, missing="report"))["counts"]) == {"here"}


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
    trained = [weights[slice(*bounds)].any() for until, weights in rows for bounds in example_bounds(until)]
    assert trained == [e["id"].startswith("text") for e in shown]
    assert {e["id"][:4]: e["failed"] for e in shown} == {"clip": "not_media", "text": None}
    assert not any(element["crops"].any() for element in elements)
    # The counts are in the state: a restart keeps them.
    assert loader.get_state()["counts"]["records"] == counts


def test_a_bad_record_costs_itself_and_is_counted(open_loader, write_records):
    ask = {"style": "text_sft", "user": "Hi.", "answer": "Ho."}
    good = [{"id": f"t{i}", "messages": [ask]} for i in range(8)]
    choice = {"style": "a_okvqa_mc", "question": "Which?", "options": ["a", "a"], "correct": 0}
    bad = {"id": "bad", "messages": [choice]}
    path = str(write_records(*good, bad))
    element = take(open_loader(records=[path], rows=(0,), max_failure_rate=0.5, pool=9, seq_len=64), 4)[-1]
    counts = element["counts"]["records"]
    assert counts["failures"] == {"bad_options": counts["failures"]["bad_options"]} and counts["examples"] >= 8


def test_past_the_failure_rate_the_run_stops_with_the_list(open_loader, folder):
    loader = open_loader(rows=(0,), max_failure_rate=0.5)
    (folder / "bikes.mp4").write_bytes(b"gone")
    with pytest.raises(
        FailureRateError, match=r"max_failure_rate = 0.5 allows. Fix the data, or raise .*; the last failures:\n"
    ) as caught:
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
    with pytest.raises(
        FailureRateError, match=r"unusable, so none is left. Fix the data; the last failures:\n.*none\.mp4"
    ):
        next(loader)


def test_dropped_messages_are_counted(open_loader):
    loader = open_loader(rows=(0,), seq_len=290)
    assert take(loader, 6)[-1]["counts"]["records"]["dropped"] > 0


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
