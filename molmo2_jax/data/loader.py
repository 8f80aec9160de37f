"""Rows without end: row r of the global batch is fed by stream r, whatever host builds it and whenever it resumes.

A stream draws examples (a new permutation of all records every epoch), describes `pool` of them at a time, packs that
window and hands out its rows. With 5 records, a pool of 4 and rows of about two examples:

    draw      0 1 2 3 | 4 5 6 7 | 8 ...
    record    3 0 4 1   2 1 3 0   4            epoch 0 ends after draw 4
    rows      [3 4] [0 1] | [2] [1 3] [0] | ...
    state     window 0, row 1: the next row is [0 1]

So row (r, s) is a pure function of (config, seed, r, s), and a stream's state is the two integers `window` and `row`
with three counts beside them. Restoring one describes and packs that window again, and decodes nothing.
"""

import dataclasses
from collections.abc import Sequence

import grain
import numpy as np

from molmo2_jax.data.config import DataConfig
from molmo2_jax.data.example import Example, describe
from molmo2_jax.data.pack import Size, pack
from molmo2_jax.data.record import Record, RecordError, load_records
from molmo2_jax.data.row import fill_row
from molmo2_jax.data.schema import RowShape, empty_row
from molmo2_jax.text.tokenizer import Tokenizer

PERMUTATION, DRAW = 0, 1  # what a seed is for: spawn keys that keep the generators of one stream apart


class FailureRateError(RuntimeError):
    """More media failed to decode than `max_failure_rate` allows; the message lists those of this run."""


def row_shape(cfg: DataConfig) -> RowShape:
    """The budgets of one row."""
    return RowShape(tokens=cfg.seq_len, crops=cfg.crops, pooled=cfg.pooled, shards=1)


def make_loader(cfg: DataConfig, *, seed: int, rows: Sequence[int]) -> grain.DatasetIterator:
    """Batches of the global batch rows `rows`, those this host owns, built ahead in a thread; close() it when done.

    An element is a dict: the arrays of schema.FIELDS as [B, ...] in the order of `rows`; `failures`, "RECORD ID: why"
    of each example of this batch that could not be decoded; `counts`, a dict of the `examples`, `failed` (of these) and
    `dropped` (messages that did not fit a row) of these rows since step 0, restarts included. `get_state()` after k
    elements restores to element k + 1 by `set_state`, however far the thread has run ahead; it is JSON of the form
    {"rows": {"0": {"window": 3, "row": 1, ...}}}, and a state of more rows than `rows` serves, too.

    Raises RecordError with everything wrong with the records, before the first element. An element past
    `max_failure_rate` raises FailureRateError.
    """
    if len(set(rows)) != len(rows) or not rows or min(rows) < 0:
        raise ValueError(f"rows are distinct indices into the global batch, not {list(rows)}")
    if cfg.pool < 1:
        raise ValueError(f"pool is {cfg.pool}: a stream packs at least one example at a time")
    if not 0 <= cfg.max_failure_rate <= 1:
        raise ValueError(f"max_failure_rate is {cfg.max_failure_rate}: a share is between 0 and 1")
    tok = Tokenizer.load(cfg.tokenizer, cfg.vocab_size)
    records = _load_all(cfg, tok)
    batches = _Batches([Stream(records, tok, cfg, seed, row) for row in rows], cfg)
    return iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=cfg.prefetch))


def _load_all(cfg: DataConfig, tok: Tokenizer) -> list[Record]:
    """The records of all files, each described once: whether one fits a row does not depend on the draw."""
    records, problems = [], []
    for path in cfg.records:
        try:
            records += load_records(path)
        except RecordError as error:
            problems += error.problems
    for record in records:
        try:
            describe(record, tok, cfg, np.random.default_rng(0))
        except RecordError as error:
            problems += error.problems
    if not cfg.records:
        problems.append("config: records names no file")
    if problems:
        raise RecordError(problems)
    return records


class Stream:
    """The endless examples of one row of the global batch, in packed windows."""

    def __init__(self, records: Sequence[Record], tok: Tokenizer, cfg: DataConfig, seed: int, row: int):
        self.row = row
        self._records, self._tok, self._cfg, self._seed = records, tok, cfg, seed

    def window(self, index: int) -> list[list[Example]]:
        """The packed rows of draws [index * pool, (index + 1) * pool)."""
        draws = range(index * self._cfg.pool, (index + 1) * self._cfg.pool)
        orders: dict[int, np.ndarray] = {}
        examples = []
        for draw in draws:
            epoch, place = divmod(draw, len(self._records))
            if epoch not in orders:
                orders[epoch] = self._generator(PERMUTATION, epoch).permutation(len(self._records))
            number = int(orders[epoch][place])
            rng = self._generator(DRAW, number, epoch)
            examples.append(describe(self._records[number], self._tok, self._cfg, rng))
        sizes = [Size(e.n_tokens, e.n_crops, e.n_pooled, ((e.n_crops, e.n_pooled),)) for e in examples]
        return [[examples[i] for i in row] for row in pack(sizes, row_shape(self._cfg))]

    def _generator(self, purpose: int, *key: int) -> np.random.Generator:
        # Entropy is padded with zeros, so that (seed, row, epoch) alone would equal (seed, row, epoch, 0).
        return np.random.default_rng(np.random.SeedSequence((self._seed, self.row, *key), spawn_key=(purpose,)))


@dataclasses.dataclass
class Cursor:
    """Where a stream stands: the next row to build, and what its rows held so far."""

    window: int
    row: int
    examples: int
    failed: int
    dropped: int


class _Batches(grain.IterDataset):
    """Grain's view of the streams: something to iterate."""

    def __init__(self, streams: Sequence[Stream], cfg: DataConfig):
        super().__init__()
        self._streams, self._cfg = streams, cfg

    def __iter__(self) -> grain.DatasetIterator:
        return _BatchIterator(self._streams, self._cfg)


class _BatchIterator(grain.DatasetIterator):
    """One batch a step, a row from each stream."""

    def __init__(self, streams: Sequence[Stream], cfg: DataConfig):
        super().__init__()
        self._streams, self._cfg = streams, cfg
        self._cursors = [Cursor(window=0, row=0, examples=0, failed=0, dropped=0) for _ in streams]
        self._windows: list[tuple[int, list[list[Example]]] | None] = [None] * len(streams)
        self._failures: list[str] = []

    def __next__(self) -> dict:
        self._assert_not_closed()
        shape = row_shape(self._cfg)
        size = len(self._streams)
        batch = {name: np.broadcast_to(a, (size, *a.shape)).copy() for name, a in empty_row(shape).items()}
        failures = []
        for index, cursor in enumerate(self._cursors):
            rows = self._window(index)
            examples = rows[cursor.row]
            # Views of the batch: crops are decoded to where they are handed out.
            failed = fill_row({name: array[index] for name, array in batch.items()}, examples)
            failures += failed
            cursor.examples += len(examples)
            cursor.failed += len(failed)
            cursor.dropped += sum(example.dropped for example in examples)
            cursor.row += 1
            if cursor.row == len(rows):
                cursor.window, cursor.row = cursor.window + 1, 0
        self._failures += failures
        counts = {key: sum(getattr(c, key) for c in self._cursors) for key in ("examples", "failed", "dropped")}
        self._check_failure_rate(counts)
        return {**batch, "failures": failures, "counts": counts}

    def get_state(self) -> dict:
        pairs = zip(self._streams, self._cursors, strict=True)
        return {"rows": {str(stream.row): dataclasses.asdict(cursor) for stream, cursor in pairs}}

    def set_state(self, state: dict) -> None:
        """Go on from `state`. Raises ValueError when it lacks a row of this host."""
        missing = [stream.row for stream in self._streams if str(stream.row) not in state["rows"]]
        if missing:
            raise ValueError(f"the data state has no rows {missing}; it has {sorted(state['rows'])}")
        self._cursors = [Cursor(**state["rows"][str(stream.row)]) for stream in self._streams]
        self._windows = [None] * len(self._streams)

    def _window(self, index: int) -> list[list[Example]]:
        """The packed window that the stream's cursor stands in; only that one is kept."""
        wanted = self._cursors[index].window
        held = self._windows[index]
        if held is None or held[0] != wanted:
            held = (wanted, self._streams[index].window(wanted))
            self._windows[index] = held
        return held[1]

    def _check_failure_rate(self, counts: dict[str, int]) -> None:
        # Judged over a window at least, or the first broken clip of a run would be a rate of 1.
        if counts["failed"] > self._cfg.max_failure_rate * max(counts["examples"], self._cfg.pool):
            raise FailureRateError(
                f"{counts['failed']} of {counts['examples']} examples could not be decoded, more than "
                f"max_failure_rate = {self._cfg.max_failure_rate} allows:\n  " + "\n  ".join(self._failures)
            )
