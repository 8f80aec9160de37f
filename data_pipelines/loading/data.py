"""The datasets and tokenizer of a config, opened and checked, and loaders of its batches."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.errors import ExampleError
from data_pipelines.loading.batches import RowBatches, RowBuilder
from data_pipelines.loading.config import DataConfig
from data_pipelines.loading.dataset import Dataset, open_dataset
from data_pipelines.loading.decode_workers import DecodePool
from data_pipelines.loading.draws import Draw, DrawSchedule
from data_pipelines.loading.loader import Loader
from data_pipelines.loading.mixture import DatasetConfig, MixtureConfig, draw_rates, mixture_table
from data_pipelines.loading.shared_rows import Exchange
from data_pipelines.loading.stream import Stream
from data_pipelines.packing.fit import fit_to_row
from data_pipelines.records.problems import RecordError
from data_pipelines.sequence.example import Example, describe
from data_pipelines.text.tokenizer import Tokenizer


class Data:
    """The datasets of a config, their rates and the tokenizer.

    `rates`: dataset -> share of all draws. `table`: the mixture as text. `tok`: the tokenizer.
    """

    def __init__(self, config: DataConfig, *, vocab_size: int, vision_shards: int):
        """Opens the datasets and the tokenizer that `config` names.

        Args:
          vocab_size: rows of the language model's base embedding; Molmo2's special tokens follow.
          vision_shards: number of equal shards of a row's crops and visual tokens, one per device along `context`.

        Raises:
          RecordError: more records of JSON-lines files are wrong than `max_failure_rate` allows; no dataset exists; or
            datasets are missing and `missing` is "stop".
          ArchiveError: a prepared folder is incomplete.
        """
        self._config, self._shards = config, vision_shards
        self.settings: dict[str, DatasetConfig] = {}
        for group in config.mixture.groups.values():
            self.settings |= group.datasets
        self.datasets = _open_datasets(config.mixture, self.settings)
        self.lengths = {name: len(self.datasets[name]) if name in self.datasets else None for name in self.settings}
        self.rates: dict[str, float] = draw_rates(config.mixture.groups, self.lengths)
        self.table: str = mixture_table(config.mixture.groups, self.lengths)
        self.tok = Tokenizer.load(config.tokenizer, vocab_size)
        self._check_json_lines(config.loader.max_failure_rate)

    def describe(self, draw: Draw, seed: int) -> list[Example]:
        """The examples of a draw, each of which fits a row. Raises ExampleError."""
        record = self.datasets[draw.dataset].record(draw.item)
        key = (seed, zlib.crc32(draw.dataset.encode()), draw.item, draw.epoch)
        rng = np.random.default_rng(np.random.SeedSequence(key))
        settings, c = self.settings[draw.dataset], self._config
        example = describe(
            record,
            rng,
            self.tok,
            c.view,
            c.prompts,
            c.token_weights,
            dataset=draw.dataset,
            high_res=settings.high_res,
            dataset_weight=settings.weight,
        )
        return fit_to_row(example, c.row, self._shards, c.loader.overflow)

    def loader(self, *, seed: int, rows: Sequence[int], streams: int, exchange: Exchange | None = None) -> Loader:
        """Batches of the rows of this host; close the loader when done.

        Args:
          rows: indices of the rows into the global batch.
          streams: rows of the global batch.
          exchange: with the other hosts that hold some of these rows. If one host cannot decode an example, all of
            them mask out its loss.
        """
        if len(set(rows)) != len(rows) or not rows or not 0 <= min(rows) <= max(rows) < streams:
            raise ValueError(f"rows are distinct indices into the {streams} rows of the global batch, not {list(rows)}")
        c = self._config
        schedule = DrawSchedule(self.rates, self.lengths, seed=seed, streams=streams, pool=c.loader.pool)
        builder = RowBuilder(self.tok, c.row, self._shards, c.token_weights.length_weight)
        pool = DecodePool(c.loader.workers)

        def describe_draw(draw: Draw) -> list[Example]:
            return self.describe(draw, seed)

        sources = [Stream(row, schedule, describe_draw, c.row, self._shards) for row in rows]
        records = sum(map(len, self.datasets.values()))
        batches = RowBatches(sources, builder, c.loader, pool, exchange, records)
        return Loader(batches, pool, exchange, c.loader.prefetch, self.rates)

    def first_batch(self, *, seed: int, rows: int, streams: int) -> dict:
        """The first `rows` of the `streams` rows of step 0, as the loader gives them."""
        loader = self.loader(seed=seed, rows=range(rows), streams=streams)
        try:
            return next(loader)
        finally:
            loader.close()

    def _check_json_lines(self, max_failure_rate: float) -> None:
        """Raises RecordError with all problems of JSON-lines files. One draw of each record is enough to find them."""
        problems, reason, bad, total = [], "", 0, 0
        for name, dataset in self.datasets.items():
            for item in range(len(dataset)) if dataset.written_by_hand else ():
                total += 1
                try:
                    self.describe(Draw(name, item, 0), seed=0)
                except ExampleError as error:
                    bad += 1
                    problems += getattr(error, "problems", [str(error)])
                    reason = reason or error.reason
        if bad > max_failure_rate * total:
            raise RecordError(problems, reason)


def _open_datasets(mixture: MixtureConfig, settings: Mapping[str, DatasetConfig]) -> dict[str, Dataset]:
    """The datasets that exist. Raises RecordError where all are missing, or one is and `mixture.missing` is "stop"."""
    found, missing = {}, []
    for name, dataset in settings.items():
        try:
            found[name] = open_dataset(dataset.source)
        except FileNotFoundError:
            missing.append(name)
    if missing and mixture.missing == "stop":
        advice = "not found; prepare it, or set data.mixture.missing = 'report' to train without it"
        raise RecordError(
            [f"dataset {name} of the mixture: {settings[name].source}: {advice}" for name in missing], "no_file"
        )
    if not found:
        raise RecordError(["config: data.mixture names no dataset that exists"], "no_file")
    return found
