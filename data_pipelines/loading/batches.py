"""Batches: the next row of each stream, laid out and decoded, with counts of their contents."""

import collections
import dataclasses
from collections.abc import Sequence

import grain
import numpy as np

from data_pipelines.loading.config import LoaderConfig
from data_pipelines.loading.decode_workers import CropBuffer, DecodePool, Failure, Job, Ticket
from data_pipelines.loading.shared_rows import Exchange, agree
from data_pipelines.loading.stream import Stream, Unusable
from data_pipelines.loading.training_counts import Counts
from data_pipelines.packing.row import PlacedExample, lay_out_row, mask_out_loss
from data_pipelines.packing.schema import RowShape, empty_row
from data_pipelines.packing.vision_shards import place
from data_pipelines.sequence.example import Example
from data_pipelines.text.tokenizer import Tokenizer

LISTED = 200  # most failures that FailureRateError lists


class FailureRateError(RuntimeError):
    """More examples are unusable than `max_failure_rate` allows; the message lists the last of this run."""


@dataclasses.dataclass(frozen=True)
class RowBuilder:
    """Turns examples into the arrays of a row. `shards`: vision shards of a row."""

    tok: Tokenizer
    shape: RowShape
    shards: int
    length_weight: float

    def lay_out(self, row: dict[str, np.ndarray], examples: Sequence[Example]) -> list[PlacedExample]:
        """Write all fields of `examples` except `crops` into `row`."""
        placements = place([example.units for example in examples], self.shape, self.shards)
        return lay_out_row(row, examples, placements, self.tok, self.length_weight)


@dataclasses.dataclass(frozen=True)
class PendingBatch:
    """A batch that is being decoded: its arrays, its examples, and the state of its streams after it."""

    arrays: dict[str, np.ndarray]
    placed: list[tuple[int, PlacedExample]]  # each with its index into the batch
    jobs: list[int]  # indices into `placed` of the examples with crops
    ticket: Ticket
    unusable: list[Unusable]
    cursors: dict[str, dict[str, int]]


class RowBatches(grain.DatasetIterator):
    """One row from each stream per batch; `prefetch` batches are decoded at a time."""

    def __init__(
        self,
        streams: Sequence[Stream],
        builder: RowBuilder,
        config: LoaderConfig,
        pool: DecodePool,
        exchange: Exchange | None,
        records: int,
    ):
        """`records`: of all datasets together; more failures than records, without a usable example, stop the run."""
        super().__init__()
        self._streams, self._builder, self._config = streams, builder, config
        self._pool, self._exchange, self._records = pool, exchange, records
        self._ahead = config.prefetch if config.workers else 1
        self._windows: list[tuple[int, list[list[Example]]] | None] = [None] * len(streams)
        self._listed: list[str] = []
        self._counts = Counts()
        self._reset({str(stream.row): {"window": 0, "row": 0} for stream in streams})

    def _reset(self, cursors: dict[str, dict[str, int]]) -> None:
        self._delivered = cursors  # the state of the streams after the last batch that was returned
        self._pending: collections.deque[PendingBatch] = collections.deque()
        self._next = {row: dict(cursor) for row, cursor in cursors.items()}

    def __next__(self) -> dict:
        self._assert_not_closed()
        while len(self._pending) < self._ahead:
            self._pending.append(self._start_batch())
        return self._finish_batch(self._pending.popleft())

    def get_state(self) -> dict:
        return {"rows": self._delivered, "counts": self._counts.to_json()}

    def set_state(self, state: dict) -> None:
        """Continue from `state`. Raises ValueError if it lacks a row of this host."""
        rows = [str(stream.row) for stream in self._streams]
        missing = [row for row in rows if row not in state["rows"]]
        if missing:
            raise ValueError(
                f"the saved data state has no position for rows {missing} of the batch, "
                f"only for {sorted(state['rows'])}; config.batch must be that of the checkpoint"
            )
        # The counts are the sum over all hosts: one host continues them, the others count from zero.
        self._counts = Counts.from_json(state["counts"] if "0" in rows else {})
        self._windows = [None] * len(self._streams)
        self._reset({row: dict(state["rows"][row]) for row in rows})

    def _start_batch(self) -> PendingBatch:
        """Lay out the next row of every stream and submit its media for decoding."""
        shape, size = self._builder.shape, len(self._streams)
        empty = empty_row(shape)
        buffer = CropBuffer((size, *empty["crops"].shape))
        arrays = {name: np.broadcast_to(a, (size, *a.shape)).copy() for name, a in empty.items() if name != "crops"}
        arrays["crops"] = buffer.array
        placed, unusable = [], []
        for index in range(size):
            row = {name: array[index] for name, array in arrays.items()}
            examples = self._take_row(index, unusable)
            placed += [(index, one) for one in self._builder.lay_out(row, examples)]
        jobs = [i for i, (_, one) in enumerate(placed) if one.crop_slots.size]
        decoding = [
            Job((index * shape.crops + one.crop_slots).tolist(), one.example.media)
            for index, one in (placed[i] for i in jobs)
        ]
        cursors = {row: dict(cursor) for row, cursor in self._next.items()}
        return PendingBatch(arrays, placed, jobs, self._pool.submit(buffer, decoding), unusable, cursors)

    def _take_row(self, index: int, unusable: list[Unusable]) -> list[Example]:
        """The next row of stream `index`. The first row of a window adds the window's unusable draws to `unusable`."""
        stream = self._streams[index]
        cursor = self._next[str(stream.row)]
        while True:
            held = self._windows[index]
            if held is None or held[0] != cursor["window"]:
                rows, failed = stream.window(cursor["window"])
                self._windows[index] = held = (cursor["window"], rows)
                if cursor["row"] == 0:
                    unusable += failed
            if cursor["row"] < len(held[1]):
                examples = held[1][cursor["row"]]
                cursor["row"] += 1
                return examples
            cursor["window"], cursor["row"] = cursor["window"] + 1, 0
            self._check_failure_rate(unusable)  # without a usable example, this loop would not end

    def _finish_batch(self, batch: PendingBatch) -> dict:
        """Wait for the media of a batch, mask out the loss of examples whose media failed, and count."""
        failed = self._decode_failures(batch)
        failures = list(batch.unusable)
        shown: list[list[dict]] = [[] for _ in self._streams]
        for number, (index, placed) in enumerate(batch.placed):
            example, failure = placed.example, failed.get(number)
            row = {name: array[index] for name, array in batch.arrays.items()}
            if example.dropped:
                self._counts.dropped(example.dataset, example.dropped)
            if failure is None:
                supervised = int((row["loss_weights"][placed.tokens] > 0).sum())
                self._counts.used(example.dataset, example.n_tokens, supervised, first=example.part == 0)
            else:
                mask_out_loss(row, placed)
                if example.part == 0:  # its other parts have the same media
                    failures.append(Unusable(example.dataset, f"{example.where}: {failure.message}", failure.reason))
            reason = None if failure is None else failure.reason
            shown[index].append({"dataset": example.dataset, "id": example.id, "failed": reason})
        for failure in failures:
            self._counts.failed(failure.dataset, failure.reason)
        messages = [f"{failure.message} ({failure.reason})" for failure in failures]
        self._listed = (self._listed + messages)[-LISTED:]
        self._delivered = batch.cursors
        self._check_failure_rate([])
        return {**batch.arrays, "failures": messages, "examples": shown, "counts": self._counts.to_json()}

    def _decode_failures(self, batch: PendingBatch) -> dict[int, Failure]:
        """{index into `placed`: why the media could not be decoded}, here or on another host that shares the row."""
        decoded = zip(batch.jobs, batch.ticket.result(), strict=True)
        failed = {number: failure for number, failure in decoded if failure is not None}
        if self._exchange is not None:
            rows = [(self._streams[index].row, placed) for index, placed in batch.placed]
            for number, failure in agree(self._exchange, rows, failed).items():
                index, placed = batch.placed[number]
                batch.arrays["crops"][index, placed.crop_slots] = 0  # as on the host where decoding failed
                failed[number] = failure
        return failed

    def _check_failure_rate(self, more: Sequence[Unusable]) -> None:
        total, config = self._counts.total(), self._config
        failed, drawn = total.failed + len(more), total.drawn + len(more)
        # A rate of 1 allows any number of failures, but a run without a usable example would draw forever.
        nothing = failed == drawn > self._records
        # Over at least one window of draws: otherwise the first broken clip of a run would be a rate of 1.
        if nothing or failed > config.max_failure_rate * max(drawn, config.pool):
            listed = self._listed + [failure.message for failure in more[-LISTED:]]
            limit = f"more than max_failure_rate = {config.max_failure_rate} allows"
            raise FailureRateError(
                f"{failed} of {drawn} examples were unusable, {'so none is left' if nothing else limit}. Fix the data"
                f"{'' if nothing else ', or raise data.loader.max_failure_rate'}; the last failures:\n  "
                + "\n  ".join(listed)
            )
