"""The loader: what is restored from a state, by which processes batches are made, and what close() ends."""

import json
import threading
from pathlib import Path

import pytest

from data_pipelines.loading.loader import merge_states
from tests.data_pipelines.loading.loaders import same, take


@pytest.mark.parametrize("prefetch", [1, 3])
def test_a_restored_loader_continues_as_if_never_stopped(open_loader, prefetch):
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
    with pytest.raises(ValueError, match=r"rows \['2'\] of the batch, only for \['0', '1'\]"):
        open_loader(rows=(0, 2)).set_state(state)


def test_a_state_is_two_integers_per_row_and_the_counts(open_loader):
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


def test_hosts_that_hold_the_same_rows_count_once(open_loader):
    states = []
    for rows in ((0, 1), (0, 1), (2, 3), (2, 3)):  # rows sharded over `context`, which spans two hosts
        loader = open_loader(rows=rows)
        next(loader)
        states.append(loader.get_state())
    whole = open_loader(rows=range(4))
    next(whole)
    assert merge_states(states) == whole.get_state()


def children():
    """Ids of the running child processes of this one."""
    return {pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_closed_loader_ends_its_thread_and_its_processes(open_loader, workers):
    before, others = threading.active_count(), children()
    loader = open_loader(prefetch=2, workers=workers)
    next(loader)
    assert threading.active_count() == before + 1 + workers
    assert bool(children() - others) == bool(workers)
    loader.close()
    loader.close()
    assert threading.active_count() == before
    assert children() == others  # which may include Python's helper processes of other tests
    with pytest.raises(ValueError, match="closed"):
        next(loader)
