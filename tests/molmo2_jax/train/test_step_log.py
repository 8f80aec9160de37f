"""Which steps are logged, and what is written of them."""

import re

import jax
import pytest

from data_pipelines.loading.training_counts import Counts
from molmo2_jax.train.step_log import StepLog, log
from molmo2_jax.train.throughput import BatchStats

BATCH = BatchStats([0, 1], capacity=64, tokens=48, model_flops=1e6, counts={})


class Writer:
    """Records what a MetricWriter would write."""

    def __init__(self):
        self.advanced, self.written, self.closed = [], {}, False

    def advance(self, step):
        self.advanced.append(step)

    def write(self, step, values):
        self.written[step] = values

    def close(self):
        self.closed = True


class FixedThroughput:
    """Two seconds per step; records which steps were gathered."""

    def __init__(self, first=True):
        self.gathered, self._first = [], first

    def step_done(self):
        return 2.0

    def global_stats(self, step, batch, seconds):
        assert batch is BATCH
        self.gathered.append(step)
        counts = Counts()
        counts.used("street", 48, 10, first=True)
        return ({"tokens_per_second": batch.tokens / seconds}, counts) if self._first else None


def run(steps, *, log_every, saving=(), first=True):
    writer, throughput = Writer(), FixedThroughput(first)
    report = StepLog(writer, throughput, {"street": 1.0}, log_every=log_every, steps=steps)
    for step in range(1, steps + 1):
        report(step, {"loss": 1 / step}, BATCH, step in saving)
    report.close()
    assert writer.closed and writer.advanced == list(range(1, steps + 1))
    return writer, throughput


def test_every_so_many_steps_and_the_last_are_written():
    writer, throughput = run(7, log_every=3)
    assert list(writer.written) == throughput.gathered == [3, 6, 7]
    assert writer.written[6] == {"loss": pytest.approx(1 / 6), "tokens_per_second": 24.0}


def test_counts_are_logged_at_checkpoints_only(capsys):
    writer, throughput = run(6, log_every=6, saving=(2, 4))
    assert list(writer.written) == [6] and throughput.gathered == [2, 4, 6]
    err = capsys.readouterr().err
    assert [line for line in err.splitlines() if line.startswith("step ")] == [
        f"step {step}: drawn since step 0" for step in (2, 4)
    ]
    assert re.search(r"street +100\.00% +100\.00% +1 ", err)


def test_other_processes_gather_the_same_steps_and_write_nothing(capsys):
    writer, throughput = run(6, log_every=3, saving=(2,), first=False)
    assert throughput.gathered == [2, 3, 6] and not writer.written
    assert capsys.readouterr().err == ""


def test_progress_is_printed_to_stderr_by_the_first_process(capsys, monkeypatch):
    log("a line")
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    log("another line")
    assert capsys.readouterr() == ("", "a line\n")
