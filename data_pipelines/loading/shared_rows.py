"""Rows that several hosts share: an example that one host cannot decode is trained on by none.

Each host reads and packs such a row itself, with the same result. Decoding may fail on one host alone (its mount is
slow), so the hosts exchange their failures before they return a batch:

    host 0    rows {"17": crc of its examples}, failed {"17/3": failure}
    host 1    rows {"17": the same crc},        failed {}          ->  both mask out the loss of example 3 of row 17
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from data_pipelines.loading.decode_workers import Failure
from data_pipelines.packing.row import PlacedExample


class Exchange(Protocol):
    """`exchange(value)`, once per batch, returns the JSON values of all hosts that share rows; `close()` ends waits."""

    def __call__(self, value: Any) -> list[Any]: ...

    def close(self) -> None: ...


class SharedRowError(RuntimeError):
    """Hosts that share a row have packed different examples into it."""


def agree(
    exchange: Exchange, placed: Sequence[tuple[int, PlacedExample]], failed_here: Mapping[int, Failure]
) -> dict[int, Failure]:
    """The examples that any host could not decode, as indices into `placed`; all hosts use the first host's failure.

    Args:
      placed: the examples of this host's rows in order, each with its row in the global batch.
      failed_here: index into `placed` -> why this host could not decode the example.

    Raises:
      SharedRowError: another host has packed different examples into a row.
    """
    packed: dict[str, list] = {}
    names = []
    for row, placed_example in placed:
        example, examples = placed_example.example, packed.setdefault(str(row), [])
        names.append(f"{row}/{len(examples)}")
        examples.append((example.dataset, example.id, example.part))
    rows = {row: zlib.crc32(repr(examples).encode()) for row, examples in packed.items()}
    index_of, agreed = {name: index for index, name in enumerate(names)}, {}
    failed = {names[index]: failure for index, failure in failed_here.items()}
    for reported in exchange({"rows": rows, "failed": failed}):
        for row in reported["rows"].keys() & rows.keys():
            if reported["rows"][row] != rows[row]:
                raise SharedRowError(
                    f"row {row} of the batch: hosts that share it have packed different examples. Make records and "
                    "media the same, and readable, on all hosts"
                )
        for name in reported["failed"].keys() & index_of.keys():
            agreed.setdefault(index_of[name], Failure(*reported["failed"][name]))
    return agreed
