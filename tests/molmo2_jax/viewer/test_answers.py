import json

import pytest

from molmo2_jax.viewer.answers import Answer, read_answers

ANSWER = {"prompt": "Point to the car.", "annotated": "<points 1>", "generated": "<points 1>"}


def test_answers_are_read_in_order(tmp_path):
    other = ANSWER | {"annotated": "zwei\nsüß", "generated": "zwei"}
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (ANSWER, other)), encoding="utf-8")
    assert read_answers(path) == [Answer(**ANSWER), Answer("Point to the car.", "zwei\nsüß", "zwei")]
    assert [answer.equal for answer in read_answers(path)] == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file has no answers"),
        ("{", ":1: not JSON"),
        ("[]\n", ":1: an answer must have the strings prompt, annotated, generated"),
        (json.dumps(ANSWER) + "\n" + json.dumps(ANSWER | {"generated": None}) + "\n", ":2: an answer must have"),
    ],
)
def test_the_error_names_the_line_that_is_not_an_answer(tmp_path, text, message):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_answers(tmp_path / "a.jsonl")
