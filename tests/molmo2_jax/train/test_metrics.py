"""Metrics of a run: metrics.jsonl, TensorBoard events, and lines on stderr."""

import json
import struct

import jax
import pytest
from tensorboardX.proto.event_pb2 import Event

from molmo2_jax.train.metrics import MetricWriter

VALUES = {"loss": 2.5, "tokens_per_second": 1234.4, "mfu": 0.123, "lr/llm": 1e-5}


def write(workdir, steps, first=0):
    writer = MetricWriter(workdir, first_step=first, steps=20)
    for step in steps:
        writer.advance(step)
        writer.write(step, VALUES | {"loss": float(step)})
    writer.close()


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def events(workdir):
    """{tag: [(step, value), …]} of all event files, whose records are a length, its checksum, bytes, their checksum."""
    found = {}
    for path in sorted(workdir.glob("events.out.tfevents.*")):
        data, start = path.read_bytes(), 0
        while start < len(data):
            (size,) = struct.unpack_from("<Q", data, start)
            event = Event.FromString(data[start + 12 : start + 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
            start += 16 + size
    return found


def test_one_line_and_one_event_per_logged_step(tmp_path):
    write(tmp_path, [10, 20])
    assert lines(tmp_path) == [{"step": step, **VALUES, "loss": float(step)} for step in (10, 20)]
    read = events(tmp_path)
    assert read.keys() == VALUES.keys()
    assert read["loss"] == [(10, 10.0), (20, 20.0)]
    assert read["lr/llm"] == [(step, pytest.approx(1e-5)) for step in (10, 20)]


def test_a_resumed_run_repeats_the_steps_after_its_checkpoint(tmp_path):
    write(tmp_path, [2, 4, 6, 8])
    write(tmp_path, [6, 8, 10], first=4)
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6, 8, 10]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("torn", ['{"step": 4, "lo', '{"step": 4', "{", "\0\0"])
def test_a_line_cut_off_by_a_kill_is_dropped(tmp_path, torn):
    write(tmp_path, [2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    write(tmp_path, [6], first=4)
    assert [line["step"] for line in lines(tmp_path)] == [2, 6]


def test_a_run_from_the_start_keeps_nothing_of_an_earlier_one(tmp_path):
    write(tmp_path, [2, 4])
    write(tmp_path, [3])
    assert [line["step"] for line in lines(tmp_path)] == [3]


def test_without_a_terminal_a_step_is_one_plain_line(tmp_path, capsys):
    write(tmp_path, [10, 20])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "step 10  loss 10.0000  1234 tok/s  mfu 12.3%",
        "step 20  loss 20.0000  1234 tok/s  mfu 12.3%",
    ]


def test_a_terminal_shows_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    write(tmp_path, [5, 10])
    err = capsys.readouterr().err
    assert "10/20" in err and "loss 10.0000" in err and "step 10 " not in err


def test_only_the_first_process_writes(tmp_path, capsys, monkeypatch):
    write(tmp_path, [2, 4])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    write(tmp_path, [2, 4])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert capsys.readouterr().err == ""
