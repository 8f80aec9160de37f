"""Running counts by dataset: what a run has trained on since step 0. They show a drift from the configured mixture.

dataset         configured   drawn  examples     tokens  loss_tokens  dropped  failed
street/overfit      60.00%  59.80%     1,192  3,104,260      210,410        0  4: 3 cut_off, 1 no_file
street/texts        40.00%  40.20%       804    204,881       90,117        2  0
"""

import collections
import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass
class DatasetCounts:
    """Counts of one dataset: `examples` in rows, their `tokens`, those of them with weight in the loss (`loss_tokens`),
    messages and subtitle lines `dropped` because they did not fit, and `failures` by reason, of examples that were
    skipped.
    """

    examples: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    dropped: int = 0
    failures: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, other: "DatasetCounts") -> None:
        for name in ("examples", "tokens", "loss_tokens", "dropped"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, count in other.failures.items():
            self.failures[reason] = self.failures.get(reason, 0) + count

    @property
    def failed(self) -> int:
        return sum(self.failures.values())

    @property
    def drawn(self) -> int:
        """All examples that were drawn."""
        return self.examples + self.failed


class Counts:
    """Counts of every dataset that was drawn from."""

    def __init__(self):
        self.datasets: dict[str, DatasetCounts] = collections.defaultdict(DatasetCounts)

    def used(self, dataset: str, tokens: int, loss_tokens: int, *, first: bool) -> None:
        """Count an example in a row; not `first` for a further part of an example that is counted already."""
        counts = self.datasets[dataset]
        counts.examples += first
        counts.tokens += tokens
        counts.loss_tokens += loss_tokens

    def dropped(self, dataset: str, count: int) -> None:
        """Count messages and subtitle lines of an example that did not fit."""
        self.datasets[dataset].dropped += count

    def failed(self, dataset: str, reason: str) -> None:
        """Count an example that cannot be used; `reason` is a key of errors.REASONS."""
        failures = self.datasets[dataset].failures
        failures[reason] = failures.get(reason, 0) + 1

    def add(self, other: "Counts") -> None:
        """Add the counts of another host."""
        for name, counts in other.datasets.items():
            self.datasets[name].add(counts)

    def total(self) -> DatasetCounts:
        """The sum over all datasets."""
        total = DatasetCounts()
        for counts in self.datasets.values():
            total.add(counts)
        return total

    def to_json(self) -> dict:
        """{"street": {"examples": 12, "tokens": ..., "failures": {"cut_off": 1}}}, which `from_json` reads."""
        return {name: dataclasses.asdict(self.datasets[name]) for name in sorted(self.datasets)}

    @classmethod
    def from_json(cls, state: Mapping[str, Mapping]) -> "Counts":
        counts = cls()
        for name, values in state.items():
            counts.datasets[name] = DatasetCounts(**{**values, "failures": dict(values["failures"])})
        return counts

    def table(self, rates: Mapping[str, float]) -> str:
        """The table in the module's docstring; `rates`: the configured share of each dataset."""
        total = max(self.total().drawn, 1)
        rows = [("dataset", "configured", "drawn", "examples", "tokens", "loss_tokens", "dropped", "failed")]
        for name in sorted(set(rates) | set(self.datasets)):
            c = self.datasets.get(name, DatasetCounts())
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(c.failures.items()))
            rows.append(
                (
                    name,
                    f"{rates.get(name, 0.0):.2%}",
                    f"{c.drawn / total:.2%}",
                    *(f"{n:,}" for n in (c.examples, c.tokens, c.loss_tokens, c.dropped)),
                    f"{c.failed}: {reasons}" if reasons else "0",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column in (0, len(widths) - 1) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )
