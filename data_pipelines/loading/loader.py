"""The loader: batches of the rows of one host, prepared ahead in a thread and in worker processes.

Stream r makes row r of the global batch, on whichever host and after any restart: row r of step s is a pure function of
(config, seed, r, s), and the state of a stream is two integers, `window` and `row` (loading/stream.py). Restoring a
state describes and packs one window again, and decodes nothing. Worker processes decode media, only for rows about to
be trained on, straight into memory that jax reads (loading/decode_workers.py).
"""

from collections.abc import Mapping, Sequence

import grain

from data_pipelines.loading.batches import RowBatches
from data_pipelines.loading.decode_workers import DecodePool
from data_pipelines.loading.shared_rows import Exchange
from data_pipelines.loading.training_counts import Counts


class Loader(grain.DatasetIterator):
    """Batches, prepared ahead. `close()` ends the thread and the worker processes.

    An element is a dict:
      the arrays of schema.FIELDS, each [B, ...] with rows in the order of `rows`
      failures   a message for each example that was found unusable
      examples   for each row, a list with {"dataset", "id", "failed"} of each example; "failed" is a reason or None
      counts     JSON of training_counts.Counts of these rows since step 0, including earlier runs

    `set_state` with the result of `get_state()` after k elements continues with element k + 1, however far the loader
    has prepared ahead, and on any number of hosts. A state is JSON:

      {"rows": {"0": {"window": 3, "row": 1}, ...}, "counts": ...}

    `rates`: the configured share of each dataset. `next` raises FailureRateError when more examples are unusable than
    `max_failure_rate` allows.
    """

    def __init__(
        self,
        batches: RowBatches,
        pool: DecodePool,
        exchange: Exchange | None,
        prefetch: int,
        rates: Mapping[str, float],
    ):
        super().__init__()
        self.rates = rates
        self._pool, self._exchange, self._started = pool, exchange, False
        self._ahead = iter(
            grain.experimental.ThreadPrefetchIterDataset(_SingleIterDataset(batches), prefetch_buffer_size=prefetch)
        )

    def __next__(self) -> dict:
        self._assert_not_closed()
        self._started = True
        return next(self._ahead)

    def get_state(self) -> dict:
        return self._ahead.get_state()

    def set_state(self, state: dict) -> None:
        """Continue from `state`. With an `exchange` only before the first element: hosts prepare ahead unequally."""
        if self._exchange is not None and self._started:
            raise ValueError("hosts that share rows can set a state before the first batch only; create a new loader")
        self._ahead.set_state(state)

    def close(self) -> None:
        if self._closed:
            return
        self._pool.close()  # first, so that no thread waits for a decoder
        if self._exchange is not None:
            self._exchange.close()
        self._ahead.close()
        del self._ahead  # must not be destroyed at interpreter exit
        super().close()


class _SingleIterDataset(grain.IterDataset):
    """Wraps one iterator as a dataset, as grain's prefetching needs."""

    def __init__(self, iterator: grain.DatasetIterator):
        super().__init__()
        self._iterator = iterator

    def __iter__(self) -> grain.DatasetIterator:
        return self._iterator


def merge_states(states: Sequence[Mapping]) -> dict:
    """One state from the states of all hosts. The loader of every host can continue from it.

    Hosts that share rows have the same counts, which are added once.
    """
    rows, counts = {}, Counts()
    for state in states:
        rows |= state["rows"]
    for one in {tuple(sorted(state["rows"])): state["counts"] for state in states}.values():
        counts.add(Counts.from_json(one))
    return {"rows": rows, "counts": counts.to_json()}
