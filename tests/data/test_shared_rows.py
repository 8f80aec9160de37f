"""Two hosts that share rows: each is a loader of its own, and the other one's words are given."""

import json

import pytest

from molmo2_jax.data.shared_rows import SharedRowError
from tests.data.loading import same


class Others:
    """An exchange with a host that shares rows: in the first turn it failed at `failed` and has packed `rows`."""

    def __init__(self, failed=(), rows=()):
        self.other, self.told, self.closed = {"failed": dict(failed), "rows": dict(rows)}, [], False

    def __call__(self, value):
        self.told.append(value)
        return [self.other, json.loads(json.dumps(value))]

    def close(self):
        self.closed = True


def failed_in(element, rows):
    """{"row of the global batch/number in it": reason} of what an element says has failed."""
    return {
        f"{row}/{number}": example["failed"]
        for row, examples in zip(rows, element["examples"], strict=True)
        for number, example in enumerate(examples)
        if example["failed"]
    }


def test_what_a_host_cannot_decode_those_that_share_the_row_silence_too(open_loader, folder):
    rows, told = (2, 1), {"max_failure_rate": 1.0}
    there, elsewhere = Others(), {"3/0": ["not of these rows", "no_file"]}
    plain = next(open_loader(rows=rows, **told))
    loader = open_loader(rows=rows, exchange=there, **told)
    whole = (folder / "bikes.mp4").read_bytes()
    (folder / "bikes.mp4").write_bytes(b"gone")
    broken = next(loader)
    assert failed_in(broken, rows) == {name: reason for name, (_, reason) in there.told[0]["failed"].items()} != {}
    (folder / "bikes.mp4").write_bytes(whole)
    here = Others(there.told[0]["failed"] | elsewhere, there.told[0]["rows"])
    loader = open_loader(rows=rows, exchange=here, **told)
    silenced = next(loader)
    assert here.told[0] == {"failed": {}, "rows": there.told[0]["rows"]} and here.told[0]["rows"].keys() == {"1", "2"}
    assert same(silenced, broken) and not same(silenced, plain)
    for name in ("failures", "examples", "counts"):
        assert silenced[name] == broken[name]
    with pytest.raises(ValueError, match="cannot be set back"):
        loader.set_state(loader.get_state())
    loader.close()
    assert here.closed


def test_hosts_that_packed_a_row_of_other_examples_stop(open_loader):
    there = Others()
    next(open_loader(rows=(2, 1), exchange=there))
    packed = there.told[0]["rows"]
    next(open_loader(rows=(2, 1), exchange=Others(rows=packed | {"0": 7})))  # a row that is not here
    with pytest.raises(SharedRowError, match=r"^row 2 of the batch: hosts that share it have packed other"):
        next(open_loader(rows=(2, 1), exchange=Others(rows=packed | {"2": packed["2"] ^ 1})))
