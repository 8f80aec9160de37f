import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from molmo2_jax.data.record import RecordError
from molmo2_jax.tools import inspect_command
from molmo2_jax.tools.branch_gradients import GradientTable

ROOT = Path(__file__).parents[2]
TEXT = {"style": "text_sft", "user": "Say hi.", "answer": "hi"}


def molmo2(*arguments):
    """The command in a process of its own, as from a shell: flags are global."""
    command = [sys.executable, "-m", "molmo2_jax.cli", *map(str, arguments)]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_the_command_draws_the_first_experiment(tmp_path):
    record = json.loads((ROOT / "experiments/street/overfit.jsonl").read_text().splitlines()[0])
    prompt = record["messages"][0]["user"]
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"prompt": prompt, "annotated": "seen", "generated": "guessed"}))
    out = tmp_path / "new" / "page.html"
    result = molmo2("inspect", "--config=experiments/overfit_video_point.py", f"--answers={answers}", f"--out={out}")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"wrote {out}\n"
    page = out.read_text(encoding="utf-8")
    assert "<title>1 row of overfit</title>" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    (example,) = data["rows"][0]["examples"]
    assert (example["dataset"], example["id"], example["failed"]) == ("overfit", record["id"], None)
    assert example["tags"] and len(example["views"]) == len(data["pictures"])
    assert data["answers"][0]["generated"]["parts"][0] == ["guessed", True]
    assert str(ROOT) not in page


def test_a_mistake_is_one_line_and_no_page(tmp_path):
    (tmp_path / "answers.jsonl").write_text("{}")
    config, out = "--config=experiments/overfit_video_point.py", tmp_path / "page.html"
    result = molmo2("inspect", config, f"--answers={tmp_path / 'answers.jsonl'}", f"--out={out}")
    assert result.returncode == 1
    assert result.stderr.startswith("molmo2 inspect: --answers: ")
    assert "answers.jsonl:1: an answer has" in result.stderr and "Traceback" not in result.stderr
    assert not out.exists()


def test_the_rows_are_the_first_of_the_run(write_records, data_config):
    path = write_records({"id": "a", "messages": [TEXT]}, {"id": "b", "messages": [TEXT]})
    rows = inspect_command.first_rows(data_config(records=(str(path),), seq_len=128), seed=0, rows=3, batch=3)
    assert len(rows) == 3 and all(row["tokens"].shape == (128,) and row["loss_weights"].any() for row in rows)


def test_wrong_records_are_named(write_records, data_config):
    path = write_records({"id": "a", "video": "gone.mp4", "messages": [TEXT]})
    with pytest.raises(RecordError, match=r"record 'a'.*gone\.mp4"):
        inspect_command.first_rows(data_config(records=(str(path),)), seed=0, rows=1, batch=1)


def test_a_leak_is_an_exit_status(capsys):
    seen = np.array([[True, False]])
    blind, leaking = (GradientTable(["A", "B"], [0], seen, np.array([[1.0, x]])) for x in (0.0, 1e-20))
    assert inspect_command._verdict([blind]) == 0
    assert inspect_command._verdict([blind, leaking]) == 1
    assert "wrong gradients: A -> B" in capsys.readouterr().out
