"""All problems of one record, collected, so that they are reported and can be fixed together."""

from collections.abc import Sequence

from data_pipelines.errors import ExampleError, without_credentials


class RecordError(ExampleError):
    """Records that cannot be trained on. `problems` has all problems, one per line; `reason` is that of the first:

    a.jsonl:3: record 'street/car': bikes.mp4: no such file
    """

    def __init__(self, problems: Sequence[str], reason: str):
        super().__init__(tuple(map(without_credentials, problems)), reason)

    @property
    def problems(self) -> tuple[str, ...]:
        return self.args[0]

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Problems:
    """The problems of the record named by `where`. The methods that read a value add a problem where it is wrong."""

    def __init__(self, where: str):
        self.where = where
        self._found: list[str] = []
        self._reason = ""

    def add(self, text: str, reason: str = "bad_record") -> None:
        """Add a problem; `reason` is a key of errors.REASONS."""
        self._reason = self._reason or reason
        self._found.append(f"{self.where}: {text}")

    def raise_any(self) -> None:
        """Raise RecordError with all problems found so far, if there are any."""
        if self._found:
            raise RecordError(self._found, self._reason)

    def has_keys(self, raw: object, what: str, required: set[str], optional: set[str]) -> bool:
        """Whether `raw` is an object with all required and no unknown keys; adds a problem for each wrong key."""
        if not isinstance(raw, dict):
            self.add(f"{what} is not an object")
            return False
        missing, unknown = sorted(required - raw.keys()), sorted(raw.keys() - required - optional)
        for key in missing:
            self.add(f"{what} has no {key!r}")
        for key in unknown:
            self.add(f"{what} has an unknown key {key!r} (known: {', '.join(sorted(required | optional))})")
        return not missing and not unknown

    def text(self, raw: dict, key: str, what: str) -> str | None:
        """The non-blank string at `key`; None where there is no such key, and, with a problem, for other values."""
        value = raw.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if key in raw:
            self.add(f"{what}: {key!r} is empty or not a string")
        return None

    def numbers(self, raw: object, what: str, names: str) -> tuple[float, ...] | None:
        """`raw` as finite numbers, one for each of `names` ("x y"); None, with a problem, for other values."""
        wanted = names.split()
        if isinstance(raw, list) and len(raw) == len(wanted) and all(is_number(value) for value in raw):
            return tuple(float(value) for value in raw)
        self.add(f"{what} must be [{', '.join(wanted)}] in numbers, not {raw!r}")
        return None


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number that a float can hold; True and False are not numbers."""
    # The bound keeps out NaN and infinity, which json reads, and integers too long for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def is_positive(value: object) -> bool:
    """Whether a JSON value is a number above 0."""
    return is_number(value) and value > 0
