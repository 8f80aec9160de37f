"""Prints generated answers below the annotated ones; the last step of `make demo`.

    python -m molmo2_jax.cli.compare runs/demo/answers.jsonl

The file is what `molmo2 generate --out` wrote. The exit status is 0 if every generated answer equals the annotated one,
else 1.
"""

import sys
from collections.abc import Sequence

from molmo2_jax.viewer.answers import Answer, read_answers


def report(answers: Sequence[Answer]) -> str:
    """The answers as text, each pair with its verdict; the last line counts the equal ones."""
    lines = []
    for answer in answers:
        lines += [
            f"prompt:    {answer.prompt}",
            f"annotated: {answer.annotated}",
            f"generated: {answer.generated}",
            f"           {'equal' if answer.equal else 'DIFFERENT'}",
            "",
        ]
    equal = sum(answer.equal for answer in answers)
    return "\n".join([*lines, f"{equal} of {len(answers)} generated answers equal the annotated ones."])


def main(argv: Sequence[str]) -> int:
    """Prints the report of the file that the one argument names and returns the exit status."""
    if len(argv) != 2:
        raise SystemExit("usage: python -m molmo2_jax.cli.compare ANSWERS.jsonl")
    answers = read_answers(argv[1])
    print(report(answers))
    return int(not all(answer.equal for answer in answers))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
