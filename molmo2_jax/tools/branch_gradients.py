"""Which tokens the loss of each branch depends on, by gradient: the proof that branches are blind to each other.

For every branch of a row that carries loss, the gradient of its loss alone with respect to all embedded tokens, as the
largest value in each branch. Zeros are exact: a leak of any size shows.

    loss of    0 root   0 A      0 B      1 root
    0 A        3e-4     2e-3     0        0
    0 B        5e-4     0        1e-3     0
"""

import dataclasses
from collections.abc import Mapping
from html import escape

import jax
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.models import params as parameters
from molmo2_jax.tools.row_view import branches, example_bounds
from molmo2_jax.train import init_from
from molmo2_jax.train.config import TrainConfig


@dataclasses.dataclass(frozen=True)
class GradientTable:
    """`largest[i, j]`: largest gradient of the loss of branch `losses[i]` at a token of branch `names[j]`."""

    names: list[str]
    losses: list[int]  # indices into names
    visible: np.ndarray  # bool like `largest`: j is i, or above i in the tree
    largest: np.ndarray

    def leaks(self) -> list[str]:
        """What is wrong: `0 A -> 0 B` for a gradient that is not zero where it must be, or zero where it must not."""
        wrong = (self.largest != 0) != self.visible
        return [f"{self.names[self.losses[i]]} -> {self.names[j]}" for i, j in np.argwhere(wrong)]

    def text(self) -> str:
        """The table in columns."""
        cells = [["loss of", *self.names]]
        for i, row in zip(self.losses, self.largest, strict=True):
            cells.append([self.names[i], *("0" if x == 0 else f"{x:.0e}" for x in row)])
        width = max(len(cell) for row in cells for cell in row) + 2
        return "\n".join("".join(cell.ljust(width) for cell in row).rstrip() for row in cells)

    def html(self) -> str:
        """The table for the page; what must be zero and is stays pale."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.names)
        body = ""
        for i, row, visible in zip(self.losses, self.largest, self.visible, strict=True):
            cells = "".join(
                f'<td class="{_kind(x, sees)}">{"0" if x == 0 else f"{x:.1e}"}</td>'
                for x, sees in zip(row, visible, strict=True)
            )
            body += f"<tr><th>{escape(self.names[i])}</th>{cells}</tr>"
        return (
            "<h3>gradient of each branch's loss to the tokens of every branch</h3>"
            f'<div class="wide"><table class="gradients"><tr><th>loss of</th>{head}</tr>{body}</table></div>'
        )


def _kind(value: float, sees: bool) -> str:
    return "leak" if (value != 0) != sees else "sees" if sees else "blind"


def gradient_tables(c: TrainConfig, rows: list[Mapping[str, np.ndarray]]) -> list[GradientTable]:
    """A table for each row, through the whole model of the config with random parameters."""
    mesh = sharding.make_mesh(c.mesh)
    run = dataclasses.replace(c.model, token_order="contiguous")  # gradients are read by place
    with jax.set_mesh(mesh):
        s = parameters.structure(init_from.architecture(c.model.preset))
        model = s.model(parameters.init(s, c.seed))

        @jax.jit
        def token_gradients(row):
            def loss(x_BSD):
                return model.losses_of(x_BSD, row, run).cross_entropy

            return abs(jax.grad(loss)(model.embed(row, run))).max(-1)

        return [_table(row, lambda one: token_gradients(sharding.put_rows(one, mesh))) for row in rows]


def _table(row: Mapping[str, np.ndarray], token_gradients) -> GradientTable:
    until, weights = row["visible_until"], row["loss_weights"]
    names, spans, parents = [], [], []
    for number, (start, stop) in enumerate(example_bounds(until)):
        found = branches(until, start, stop)
        parents += [None if part.parent is None else len(spans) + part.parent for part in found]
        names += [f"{number} {part.name}" for part in found]
        spans += [slice(part.start, part.stop) for part in found]
    losses = [i for i, span in enumerate(spans) if weights[span].any()]
    largest = np.zeros((len(losses), len(spans)), np.float32)
    visible = np.zeros(largest.shape, bool)
    for n, i in enumerate(losses):
        only = np.zeros_like(weights)
        only[spans[i]] = weights[spans[i]]
        one = {name: a[None] for name, a in (dict(row) | {"loss_weights": only}).items()}
        gradients_S = np.asarray(token_gradients(one))[0]
        largest[n] = [gradients_S[span].max() for span in spans]
        j = i
        while j is not None:
            visible[n, j], j = True, parents[j]
    return GradientTable(names, losses, visible, largest)
