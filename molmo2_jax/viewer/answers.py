"""Generated answers next to annotated ones, as `molmo2 generate --out` writes them.

The file has one answer per line: {"prompt": "…", "annotated": "…", "generated": "…"}.
"""

import json
import pathlib
from typing import NamedTuple


class Answer(NamedTuple):
    """A prompt, the answer that a person wrote and the answer that the model generated."""

    prompt: str
    annotated: str
    generated: str

    @property
    def equal(self) -> bool:
        """Whether the model generated exactly the annotated text."""
        return self.annotated == self.generated


def read_answers(path: str | pathlib.Path) -> list[Answer]:
    """The answers of a JSON-lines file. Raises ValueError with file and line where a line is not an answer."""
    answers = []
    for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            raw = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(raw, dict) or any(not isinstance(raw.get(name), str) for name in Answer._fields):
            raise ValueError(f"{path}:{number}: an answer must have the strings {', '.join(Answer._fields)}")
        answers.append(Answer(*(raw[name] for name in Answer._fields)))
    if not answers:
        raise ValueError(f"{path}: the file has no answers")
    return answers
