"""Rows without end: row r of the global batch is fed by stream r, whatever host builds it and whenever it resumes.

A stream draws a window of examples (data/mixture.py says which), describes and packs them, and hands out the rows. With
a pool of 4 and rows of about two examples:

    window     0                  1
    drawn      a7 a3 b0 a5        a1 b4 a2 a6
    rows       [a7 b0] [a3 a5]    [a1 a6] [b4] [a2]
    state      window 1, row 2: the next row is [a2]

So row (r, s) is a pure function of (config, seed, r, s), and a stream's state is the two integers `window` and `row`.
Restoring one describes and packs that window again, and decodes nothing. Media are decoded only for rows that are about
to be trained on, by worker processes, straight into the memory that jax reads (data/workers.py).
"""

import collections
import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import grain
import numpy as np

from molmo2_jax.data.complaints import RecordError
from molmo2_jax.data.config import DataConfig, DatasetConfig
from molmo2_jax.data.counts import Counts
from molmo2_jax.data.dataset import Dataset, open_dataset
from molmo2_jax.data.example import Example, describe
from molmo2_jax.data.failure import ExampleError
from molmo2_jax.data.mixture import Draw, Schedule, rates, table
from molmo2_jax.data.pack import Size, pack
from molmo2_jax.data.row import Placed, lay_out_row, silence
from molmo2_jax.data.schema import RowShape, empty_row
from molmo2_jax.data.shared_rows import Exchange, agree
from molmo2_jax.data.workers import CropBuffer, DecodePool, Job, Ticket
from molmo2_jax.text.tokenizer import Tokenizer

LISTED = 200  # failures that are listed when a run stops because of them


class FailureRateError(RuntimeError):
    """More examples were unusable than `max_failure_rate` allows; the message lists those of this run."""


def row_shape(cfg: DataConfig) -> RowShape:
    """The budgets of one row."""
    return RowShape(tokens=cfg.seq_len, crops=cfg.crops, pooled=cfg.pooled, shards=cfg.vision_shards)


class Data:
    """What a config's `data` names, opened and checked: the datasets, their rates, the tokenizer.

    `rates`: dataset -> share of all draws. `table`: the mixture as a text. Raises RecordError with all that is wrong
    with records in JSON-lines files, if that is more than `max_failure_rate` allows, or with the datasets that are not
    there, if `missing` is "stop"; ArchiveError for a prepared folder that is not whole.
    """

    def __init__(self, cfg: DataConfig):
        if cfg.pool < 1:
            raise ValueError(f"pool is {cfg.pool}: a stream packs at least one example at a time")
        if not 0 <= cfg.max_failure_rate <= 1:
            raise ValueError(f"max_failure_rate is {cfg.max_failure_rate}: a share is between 0 and 1")
        self.cfg = cfg
        self.settings: dict[str, DatasetConfig] = {}
        for group in cfg.mixture.values():
            self.settings |= group.datasets
        self.datasets, missing = _open_all(self.settings)
        if missing and cfg.missing == "stop":
            advice = "not there; prepare it, or go on without it by data.missing = 'report'"
            raise RecordError(
                [f"dataset {name} of the mixture: {self.settings[name].source}: {advice}" for name in missing],
                "no_file",
            )
        if not self.datasets:
            raise RecordError(["config: data.mixture names no dataset that is there"], "no_file")
        self.lengths = {name: len(self.datasets[name]) if name in self.datasets else None for name in self.settings}
        self.rates: dict[str, float] = rates(cfg.mixture, self.lengths)
        self.table: str = table(cfg.mixture, self.lengths)
        self.tok = Tokenizer.load(cfg.tokenizer, cfg.vocab_size)
        _check_written_by_hand(self)

    def describe(self, draw: Draw, seed: int) -> list[Example]:
        """The examples of a draw. Raises ExampleError."""
        record = self.datasets[draw.dataset].record(draw.item)
        key = (seed, zlib.crc32(draw.dataset.encode()), draw.item, draw.epoch)
        rng = np.random.default_rng(np.random.SeedSequence(key))
        return describe(record, draw.dataset, self.settings[draw.dataset], self.tok, self.cfg, rng)

    def loader(self, *, seed: int, rows: Sequence[int], streams: int, exchange: Exchange | None = None) -> "Loader":
        """Batches of the rows that this host owns, `rows` of `streams` in the global batch; close() it when done.

        `exchange` is with the hosts that own some of these rows, too: what one of them cannot decode none trains on.
        """
        if len(set(rows)) != len(rows) or not rows or not 0 <= min(rows) <= max(rows) < streams:
            raise ValueError(f"rows are distinct indices into the {streams} rows of the global batch, not {list(rows)}")
        schedule = Schedule(self.rates, self.lengths, seed=seed, streams=streams, pool=self.cfg.pool)
        pool = DecodePool(self.cfg.workers)
        batches = _Batches([Stream(self, schedule, seed, row) for row in rows], self, pool, exchange)
        return Loader(batches, pool, exchange, self.cfg.prefetch, self.rates)


def _open_all(settings: Mapping[str, DatasetConfig]) -> tuple[dict[str, Dataset], list[str]]:
    """The datasets that are there, and the names of those that are not."""
    found, missing = {}, []
    for name, one in settings.items():
        try:
            found[name] = open_dataset(one.source)
        except FileNotFoundError:
            missing.append(name)
    return found, missing


def _check_written_by_hand(data: Data) -> None:
    """RecordError with all that is wrong in JSON-lines files. What fits a row hardly depends on the draw."""
    problems, reason, bad, total = [], "", 0, 0
    for name, dataset in data.datasets.items():
        for item in range(len(dataset)) if dataset.written_by_hand else ():
            total += 1
            try:
                data.describe(Draw(name, item, 0), seed=0)
            except ExampleError as error:
                bad += 1
                problems += getattr(error, "problems", [str(error)])
                reason = reason or error.reason
    if bad > data.cfg.max_failure_rate * total:
        raise RecordError(problems, reason)


def make_loader(cfg: DataConfig, *, seed: int, rows: Sequence[int], streams: int) -> "Loader":
    """Opens what `cfg` names and makes a loader of it; see Data for what it raises."""
    return Data(cfg).loader(seed=seed, rows=rows, streams=streams)


@dataclasses.dataclass(frozen=True)
class Unusable:
    """An example that was given up: what errors call it, what is wrong, and why, a key of failure.REASONS."""

    dataset: str
    message: str
    reason: str


class Stream:
    """The endless examples of one row of the global batch, in packed windows."""

    def __init__(self, data: Data, schedule: Schedule, seed: int, row: int):
        self.row = row
        self._data, self._schedule, self._seed = data, schedule, seed

    def window(self, index: int) -> tuple[list[list[Example]], list[Unusable]]:
        """The packed rows of window `index`, and those of its draws that cannot be described."""
        examples: list[Example] = []
        unusable = []
        for draw in self._schedule.window(self.row, index):
            try:
                examples += self._data.describe(draw, self._seed)
            except ExampleError as error:
                unusable.append(Unusable(draw.dataset, str(error), error.reason))
        sizes = [Size(e.n_tokens, e.n_crops, e.n_pooled, e.units) for e in examples]
        return [[examples[i] for i in row] for row in pack(sizes, row_shape(self._data.cfg))], unusable


@dataclasses.dataclass(frozen=True)
class _Begun:
    """A batch on its way: its arrays, the examples in it, the decoding under way, and where its streams stand after."""

    arrays: dict[str, np.ndarray]
    placed: list[tuple[int, Placed]]  # with the batch row
    jobs: list[int]  # places in `placed` that have something to decode
    ticket: Ticket
    unusable: list[Unusable]
    cursors: dict[str, dict[str, int]]


class _Batches(grain.DatasetIterator):
    """One batch a step, a row from each stream; `prefetch` batches are being decoded at a time."""

    def __init__(self, streams: Sequence[Stream], data: Data, pool: DecodePool, exchange: Exchange | None):
        super().__init__()
        self._streams, self._data, self._pool, self._exchange = streams, data, pool, exchange
        self._ahead = data.cfg.prefetch if data.cfg.workers else 1
        self._windows: list[tuple[int, list[list[Example]]] | None] = [None] * len(streams)
        self._listed: list[str] = []
        self._counts = Counts()
        self._start({str(stream.row): {"window": 0, "row": 0} for stream in streams})

    def _start(self, cursors: dict[str, dict[str, int]]) -> None:
        self._delivered = cursors  # where the last batch that was handed out left the streams
        self._begun: collections.deque[_Begun] = collections.deque()
        self._next = {row: dict(cursor) for row, cursor in cursors.items()}

    def __next__(self) -> dict:
        self._assert_not_closed()
        while len(self._begun) < self._ahead:
            self._begun.append(self._begin())
        return self._finish(self._begun.popleft())

    def get_state(self) -> dict:
        return {"rows": self._delivered, "counts": self._counts.to_json()}

    def set_state(self, state: dict) -> None:
        """Go on from `state`. Raises ValueError when it lacks a row of this host."""
        rows = [str(stream.row) for stream in self._streams]
        missing = [row for row in rows if row not in state["rows"]]
        if missing:
            raise ValueError(f"the data state has no rows {missing}; it has {sorted(state['rows'])}")
        # The counts are of all rows together: one host carries them on, the others count what is new.
        self._counts = Counts.from_json(state["counts"] if "0" in rows else {})
        self._windows = [None] * len(self._streams)
        self._start({row: dict(state["rows"][row]) for row in rows})

    def _begin(self) -> _Begun:
        """Lay out the next row of every stream and have its media decoded."""
        cfg, shape = self._data.cfg, row_shape(self._data.cfg)
        empty, size = empty_row(shape), len(self._streams)
        buffer = CropBuffer((size, *empty["crops"].shape))
        arrays = {name: np.broadcast_to(a, (size, *a.shape)).copy() for name, a in empty.items() if name != "crops"}
        arrays["crops"] = buffer.array
        placed, unusable = [], []
        for index in range(size):
            row = {name: array[index] for name, array in arrays.items()}
            examples = self._take(index, unusable)
            placed += [(index, one) for one in lay_out_row(row, examples, self._data.tok, shape, cfg.length_weight)]
        jobs = [i for i, (_, one) in enumerate(placed) if one.slots.size]
        ticket = self._pool.submit(
            buffer, [Job((b * shape.crops + p.slots).tolist(), p.example.media) for b, p in (placed[i] for i in jobs)]
        )
        return _Begun(arrays, placed, jobs, ticket, unusable, {row: dict(c) for row, c in self._next.items()})

    def _take(self, index: int, unusable: list[Unusable]) -> list[Example]:
        """The next row of a stream; what its window could not describe is told with the first row."""
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
            self._check_failure_rate(unusable)  # a mixture of nothing usable must not be looked through for ever

    def _finish(self, begun: _Begun) -> dict:
        """Wait for the media of a batch, silence the examples that lack them, and count."""
        decoded = zip(begun.jobs, begun.ticket.result(), strict=True)
        given_up = {place: failure for place, failure in decoded if failure is not None}
        if self._exchange is not None:
            rows = [(self._streams[index].row, one) for index, one in begun.placed]
            for place, failure in agree(self._exchange, rows, given_up).items():
                index, one = begun.placed[place]
                begun.arrays["crops"][index, one.slots[one.slots >= 0]] = 0  # as where decoding failed
                given_up[place] = failure
        failures = list(begun.unusable)
        shown: list[list[dict]] = [[] for _ in self._streams]
        for place, (index, one) in enumerate(begun.placed):
            example, failure = one.example, given_up.get(place)
            row = {name: array[index] for name, array in begun.arrays.items()}
            if example.dropped:
                self._counts.dropped(example.dataset, example.dropped)
            if failure is None:
                learned = int((row["loss_weights"][one.tokens] > 0).sum())
                self._counts.used(example.dataset, example.n_tokens, learned, first=example.part == 0)
            else:
                silence(row, one)
                if example.part == 0:  # its other parts lack the same media
                    failures.append(Unusable(example.dataset, f"{example.where}: {failure.message}", failure.reason))
            reason = None if failure is None else failure.reason
            shown[index].append({"dataset": example.dataset, "id": example.id, "failed": reason})
        for failure in failures:
            self._counts.failed(failure.dataset, failure.reason)
        messages = [f"{failure.message} ({failure.reason})" for failure in failures]
        self._listed = (self._listed + messages)[-LISTED:]
        self._delivered = begun.cursors
        self._check_failure_rate([])
        return {**begun.arrays, "failures": messages, "examples": shown, "counts": self._counts.to_json()}

    def _check_failure_rate(self, more: Sequence[Unusable]) -> None:
        total, cfg = self._counts.total(), self._data.cfg
        failed, drawn = total.failed + len(more), total.drawn + len(more)
        # A rate of 1 allows any failure, but not a run without a single example, which would draw for ever.
        nothing = failed == drawn > sum(map(len, self._data.datasets.values()))
        # Judged over a window at least, or the first broken clip of a run would be a rate of 1.
        if nothing or failed > cfg.max_failure_rate * max(drawn, cfg.pool):
            listed = self._listed + [one.message for one in more[-LISTED:]]
            raise FailureRateError(
                f"{failed} of {drawn} examples were unusable, "
                + ("which leaves none" if nothing else f"more than max_failure_rate = {cfg.max_failure_rate} allows")
                + "; the last of them:\n  "
                + "\n  ".join(listed)
            )


class Loader(grain.DatasetIterator):
    """Batches, planned and built ahead in a thread and in worker processes. `close()` ends both.

    An element is a dict: the arrays of schema.FIELDS as [B, ...] in the order of `rows`; `failures`, a line for each
    example that was found unusable; `examples`, for each row a dict of `dataset`, `id` and `failed` (a reason or None)
    for each example in it; `counts`, the JSON of counts.Counts of these rows since step 0, restarts included.
    `get_state()` after k elements restores to element k + 1 by `set_state`, however far the work has run ahead, on this
    or another number of hosts; it is JSON of the form {"rows": {"0": {"window": 3, "row": 1}, ...}, "counts": ...}.

    `rates`: the configured share of each dataset. An element past `max_failure_rate` raises FailureRateError.
    """

    def __init__(
        self, batches: _Batches, pool: DecodePool, exchange: Exchange | None, prefetch: int, rates: Mapping[str, float]
    ):
        super().__init__()
        self.rates = rates
        self._pool, self._exchange, self._begun = pool, exchange, False
        self._ahead = iter(grain.experimental.ThreadPrefetchIterDataset(_Once(batches), prefetch_buffer_size=prefetch))

    def __next__(self) -> dict:
        self._assert_not_closed()
        self._begun = True
        return next(self._ahead)

    def get_state(self) -> dict:
        return self._ahead.get_state()

    def set_state(self, state: dict) -> None:
        """Go on from `state`; with an `exchange` before the first element only, since hosts run ahead unequally."""
        if self._exchange is not None and self._begun:
            raise ValueError("a loader that shares rows with other hosts cannot be set back; make another")
        self._ahead.set_state(state)

    def close(self) -> None:
        if self._closed:
            return
        self._pool.close()  # first, so that nobody waits for a decoder
        if self._exchange is not None:
            self._exchange.close()
        self._ahead.close()
        del self._ahead  # its destructor must not be left to the interpreter's end
        super().close()


class _Once(grain.IterDataset):
    """The view of one iterator as a dataset, which grain's prefetching wants."""

    def __init__(self, iterator: grain.DatasetIterator):
        super().__init__()
        self._iterator = iterator

    def __iter__(self) -> grain.DatasetIterator:
        return self._iterator


def merge_states(states: Sequence[Mapping]) -> dict:
    """The state of all hosts together, from each host's own: every host's loader can go on from it.

    Hosts that hold the same rows (a row may be cut between hosts) have counted the same, which counts once.
    """
    rows, counts = {}, Counts()
    for state in states:
        rows |= state["rows"]
    for one in {tuple(sorted(state["rows"])): state["counts"] for state in states}.values():
        counts.add(Counts.from_json(one))
    return {"rows": rows, "counts": counts.to_json()}
