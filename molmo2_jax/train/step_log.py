"""The log of a run: metrics to files and terminal, counts at each checkpoint."""

import sys
from collections.abc import Mapping

import jax

from molmo2_jax.train.metrics import MetricWriter
from molmo2_jax.train.throughput import BatchStats, Throughput


def log(text: str) -> None:
    """Prints progress to stderr, at the first process only; stdout is for results."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


class StepLog:
    """Logs steps. All processes call it for the same steps; the first one writes.

    Args:
      rates: the configured share of each dataset, for the table of counts.
    """

    def __init__(
        self, writer: MetricWriter, throughput: Throughput, rates: Mapping[str, float], *, log_every: int, steps: int
    ):
        self._writer, self._throughput, self._rates = writer, throughput, rates
        self._log_every, self._steps = log_every, steps

    def __call__(self, number: int, values: Mapping[str, float], batch: BatchStats, saving: bool) -> None:
        """Logs step `number`, whose metrics are `values` and whose batch is `batch`; `saving`: a checkpoint follows."""
        self._writer.advance(number)
        seconds = self._throughput.step_done()
        logging = number % self._log_every == 0 or number == self._steps
        stats = self._throughput.global_stats(number, batch, seconds) if logging or saving else None
        if stats is None:
            return
        rates, counts = stats
        if logging:
            self._writer.write(number, values | rates)
        if saving:
            log(f"step {number}: drawn since step 0\n{counts.table(self._rates)}")

    def close(self) -> None:
        self._writer.close()
