import json
import pathlib
import re
import subprocess
import sys

import pytest

from molmo2_jax.cli import compare

ROOT = pathlib.Path(__file__).parents[3]
ANSWER = {"prompt": "Point to the car.", "annotated": "<points 1>", "generated": "<points 1>"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_equal_answers_end_with_status_0(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", ANSWER, ANSWER | {"annotated": "zwei\nsüß", "generated": "zwei\nsüß"})
    assert compare.main(["compare", str(path)]) == 0
    out = capsys.readouterr().out
    assert "annotated: <points 1>\ngenerated: <points 1>\n           equal" in out
    assert out.endswith("2 of 2 generated answers equal the annotated ones.\n")


def test_a_different_answer_is_marked_and_ends_with_status_1(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", ANSWER, ANSWER | {"generated": "<points 1> "})
    assert compare.main(["compare", str(path)]) == 1
    assert "DIFFERENT\n\n1 of 2" in capsys.readouterr().out


def test_the_command_takes_one_file():
    with pytest.raises(SystemExit, match="usage"):
        compare.main(["compare"])


def test_the_demo_runs_the_command_with_its_exit_status(tmp_path):
    (module,) = re.findall(r"python -m (\S+) \S*answers\.jsonl", (ROOT / "Makefile").read_text())
    path = write(tmp_path / "a.jsonl", ANSWER, ANSWER | {"generated": "no"})
    result = subprocess.run([sys.executable, "-m", module, path], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert result.stdout.endswith("1 of 2 generated answers equal the annotated ones.\n")
