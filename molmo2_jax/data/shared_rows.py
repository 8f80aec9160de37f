"""Hosts that hold parts of the same rows: what one of them cannot decode, none trains on.

Each reads and packs such a row for itself, and gets the same. Decoding may fail on one host alone (its mount is slow),
so hosts tell each other before a batch is handed out:

    host 0    rows {"17": crc of its examples}, failed {"17/3": why}
    host 1    rows {"17": the same},            failed {}                  ->  both silence example 3 of row 17
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from molmo2_jax.data.row import Placed
from molmo2_jax.data.workers import Failure


class Exchange(Protocol):
    """`exchange(value)`, once a batch, gives the JSON values of all hosts that share rows; `close()` ends waiting."""

    def __call__(self, value: Any) -> list[Any]: ...

    def close(self) -> None: ...


class SharedRowError(RuntimeError):
    """Hosts that hold parts of the same row would train on parts of different ones."""


def agree(
    exchange: Exchange, placed: Sequence[tuple[int, Placed]], given_up: Mapping[int, Failure]
) -> dict[int, Failure]:
    """What any host could not decode, by its place in `placed`; the first host's reason counts for all.

    Args:
      placed: the examples of this host's rows in order, each with its row in the global batch.
      given_up: place -> why this host could not decode it.

    Raises:
      SharedRowError: another host has packed a row of other examples.
    """
    packed: dict[str, list] = {}
    names = []
    for row, one in placed:
        examples = packed.setdefault(str(row), [])
        names.append(f"{row}/{len(examples)}")
        examples.append((one.example.dataset, one.example.id, one.example.part))
    rows = {row: zlib.crc32(repr(examples).encode()) for row, examples in packed.items()}
    places, agreed = {name: place for place, name in enumerate(names)}, {}
    for told in exchange({"rows": rows, "failed": {names[place]: failure for place, failure in given_up.items()}}):
        for row in told["rows"].keys() & rows.keys():
            if told["rows"][row] != rows[row]:
                raise SharedRowError(
                    f"row {row} of the batch: hosts that share it have packed other examples. Records and media must "
                    "be the same for all, and readable by all"
                )
        for name in told["failed"].keys() & places.keys():
            agreed.setdefault(places[name], Failure(*told["failed"][name]))
    return agreed
