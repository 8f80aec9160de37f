"""Two hosts that share rows: one is a loader, the other a fake that reports given values."""

import json

import pytest

from data_pipelines.loading.shared_rows import SharedRowError
from tests.data_pipelines.loading.loaders import same


class Others:
    """An exchange with another host, which reports `failed` and `rows` for the first batch."""

    def __init__(self, failed=(), rows=()):
        self.other, self.sent, self.closed = {"failed": dict(failed), "rows": dict(rows)}, [], False

    def __call__(self, value):
        self.sent.append(value)
        return [self.other, json.loads(json.dumps(value))]

    def close(self):
        self.closed = True


def failed_in(element, rows):
    """{"row of the global batch/index in it": reason} of the failed examples of an element."""
    return {
        f"{row}/{number}": example["failed"]
        for row, examples in zip(rows, element["examples"], strict=True)
        for number, example in enumerate(examples)
        if example["failed"]
    }


def test_the_loss_of_what_one_host_cannot_decode_is_masked_out_on_all_that_share_the_row(open_loader, folder):
    rows, changes = (2, 1), {"max_failure_rate": 1.0}
    there, elsewhere = Others(), {"3/0": ["not of these rows", "no_file"]}
    plain = next(open_loader(rows=rows, **changes))
    loader = open_loader(rows=rows, exchange=there, **changes)
    whole = (folder / "bikes.mp4").read_bytes()
    (folder / "bikes.mp4").write_bytes(b"gone")
    broken = next(loader)
    assert failed_in(broken, rows) == {name: reason for name, (_, reason) in there.sent[0]["failed"].items()} != {}
    (folder / "bikes.mp4").write_bytes(whole)
    here = Others(there.sent[0]["failed"] | elsewhere, there.sent[0]["rows"])
    loader = open_loader(rows=rows, exchange=here, **changes)
    masked = next(loader)
    assert here.sent[0] == {"failed": {}, "rows": there.sent[0]["rows"]} and here.sent[0]["rows"].keys() == {"1", "2"}
    assert same(masked, broken) and not same(masked, plain)
    for name in ("failures", "examples", "counts"):
        assert masked[name] == broken[name]
    with pytest.raises(ValueError, match="set a state before the first batch only"):
        loader.set_state(loader.get_state())
    loader.close()
    assert here.closed


def test_hosts_that_packed_a_row_of_other_examples_stop(open_loader):
    there = Others()
    next(open_loader(rows=(2, 1), exchange=there))
    packed = there.sent[0]["rows"]
    next(open_loader(rows=(2, 1), exchange=Others(rows=packed | {"0": 7})))  # a row that is not here
    with pytest.raises(SharedRowError, match=r"^row 2 of the batch: hosts that share it have packed different"):
        next(open_loader(rows=(2, 1), exchange=Others(rows=packed | {"2": packed["2"] ^ 1})))
