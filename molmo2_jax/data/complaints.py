"""Collecting all that is wrong with one record, so that whoever mends it sees everything at once."""

from molmo2_jax.data.failure import ExampleError


class RecordError(ExampleError):
    """Records no one can train on. `problems` has them all, a line each; `reason` is that of the first:

    a.jsonl:3: record 'street/car': bikes.mp4: no such file
    """

    def __init__(self, problems, reason: str):
        super().__init__(tuple(problems), reason)

    @property
    def problems(self) -> tuple[str, ...]:
        return self.args[0]

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Complaints:
    """What is wrong with the record named by `where`. Call it with one more problem and its reason."""

    def __init__(self, where: str):
        self.where = where
        self._problems: list[str] = []
        self._reason = ""

    def __call__(self, text: str, reason: str = "bad_record") -> None:
        self._reason = self._reason or reason
        self._problems.append(f"{self.where}: {text}")

    def raise_any(self) -> None:
        """RecordError with everything found so far, if there is anything."""
        if self._problems:
            raise RecordError(self._problems, self._reason)

    def keys(self, raw: object, what: str, required: set[str], optional: set[str]) -> bool:
        """Whether `raw` is an object with all required and no unknown keys; complains of each that is off."""
        if not isinstance(raw, dict):
            self(f"{what} is not an object")
            return False
        missing, unknown = sorted(required - raw.keys()), sorted(raw.keys() - required - optional)
        for key in missing:
            self(f"{what} has no {key!r}")
        for key in unknown:
            self(f"{what} has an unknown key {key!r} (known: {', '.join(sorted(required | optional))})")
        return not missing and not unknown

    def text(self, raw: dict, key: str, what: str) -> str | None:
        """The non-blank string at `key`, or None after complaining; None in silence where there is no such key."""
        value = raw.get(key)
        if isinstance(value, str) and value.strip():
            return value
        if key in raw:
            self(f"{what}: {key!r} is empty or not a string")
        return None

    def numbers(self, raw: object, what: str, names: str) -> tuple[float, ...] | None:
        """`raw`, a list of finite numbers as `names` counts them ("x y"), or None after complaining."""
        wanted = names.split()
        if isinstance(raw, list) and len(raw) == len(wanted) and all(is_number(value) for value in raw):
            return tuple(float(value) for value in raw)
        self(f"{what} is [{', '.join(wanted)}] in numbers, not {raw!r}")
        return None


def is_number(value: object) -> bool:
    """Whether JSON gave a finite number that a float can hold; True and False are none."""
    # The bound keeps out NaN and infinity, which json reads, and integers too long for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def is_positive(value: object) -> bool:
    """Whether it is a number above 0."""
    return is_number(value) and value > 0
