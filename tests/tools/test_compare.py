import json

import pytest

from molmo2_jax.tools import compare

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no answers"),
        ("{", ":1: not JSON"),
        ("[]\n", ":1: an answer has the texts prompt, annotated, generated"),
        (json.dumps(ANSWER) + "\n" + json.dumps(ANSWER | {"generated": None}) + "\n", ":2: an answer has"),
    ],
)
def test_a_file_that_holds_no_answers_is_refused_by_line(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        compare.read_answers(tmp_path / "a.jsonl")


def test_the_command_wants_one_file():
    with pytest.raises(SystemExit, match="usage"):
        compare.main(["compare"])
