"""Prints annotated and generated answers one under the other; the end of `make demo`.

    python -m molmo2_jax.tools.compare runs/demo/answers.jsonl

The file has one answer a line: {"prompt": "…", "annotated": "…", "generated": "…"}. The exit status is 0 when every
generated answer equals its annotation, else 1.
"""

import json
import pathlib
import sys
from typing import NamedTuple


class Answer(NamedTuple):
    """One prompt with the answer a person wrote and the answer the model gave."""

    prompt: str
    annotated: str
    generated: str


def read_answers(path: str | pathlib.Path) -> list[Answer]:
    """The answers of a JSON-lines file; ValueError naming the line that is not one."""
    answers = []
    for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            raw = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(raw, dict) or any(not isinstance(raw.get(name), str) for name in Answer._fields):
            raise ValueError(f"{path}:{number}: an answer has the texts {', '.join(Answer._fields)}")
        answers.append(Answer(*(raw[name] for name in Answer._fields)))
    if not answers:
        raise ValueError(f"{path}: no answers in it")
    return answers


def report(answers: list[Answer]) -> str:
    """The answers as text, each pair with its verdict, and the count of equal ones in the last line."""
    lines = []
    for answer in answers:
        verdict = "equal" if answer.annotated == answer.generated else "DIFFERENT"
        lines += [
            f"prompt:    {answer.prompt}",
            f"annotated: {answer.annotated}",
            f"generated: {answer.generated}",
            f"           {verdict}",
            "",
        ]
    equal = sum(answer.annotated == answer.generated for answer in answers)
    return "\n".join([*lines, f"{equal} of {len(answers)} generated answers equal the annotated ones."])


def main(argv: list[str]) -> int:
    """Prints the report of the one file named; the exit status."""
    if len(argv) != 2:
        raise SystemExit("usage: python -m molmo2_jax.tools.compare ANSWERS.jsonl")
    answers = read_answers(argv[1])
    print(report(answers))
    return int(any(answer.annotated != answer.generated for answer in answers))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
