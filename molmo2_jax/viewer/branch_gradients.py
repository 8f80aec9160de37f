"""Which tokens the loss of each branch depends on: a check by gradient that no branch attends to another.

For every branch of a row that has loss, the gradient of its loss alone with respect to all embedded tokens, reduced to
the largest value in each branch. Zeros are exact, so that a leak of any size is found.

    loss of    0 root   0 A      0 B      1 root
    0 A        3e-4     2e-3     0        0
    0 B        5e-4     0        1e-3     0
"""

import dataclasses
from collections.abc import Callable, Mapping
from html import escape

import jax
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.train.setup import Setup
from molmo2_jax.viewer.row_reader import branches, example_bounds
from molmo2_jax.weights.random_init import init_params


@dataclasses.dataclass(frozen=True)
class GradientTable:
    """`largest[i, j]`: the largest gradient of the loss of branch `losses[i]` at a token of branch `names[j]`."""

    names: list[str]  # N branches
    losses: list[int]  # indices into names of the L branches with loss
    visible: np.ndarray  # bool[L, N]: j is the branch itself or one of its ancestors
    largest: np.ndarray  # float32[L, N]

    def leaks(self) -> list[str]:
        """Wrong entries as `0 A -> 0 B`: a gradient that must be zero and is not, or must not be zero and is."""
        wrong = (self.largest != 0) != self.visible
        return [f"{self.names[self.losses[i]]} -> {self.names[j]}" for i, j in np.argwhere(wrong)]

    def text(self) -> str:
        """The table as text, in columns."""
        cells = [["loss of", *self.names]]
        for i, row in zip(self.losses, self.largest, strict=True):
            cells.append([self.names[i], *("0" if x == 0 else f"{x:.0e}" for x in row)])
        width = max(len(cell) for row in cells for cell in row) + 2
        return "\n".join("".join(cell.ljust(width) for cell in row).rstrip() for row in cells)

    def html(self) -> str:
        """The table as HTML for the page; a class of each cell shows what it is."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.names)
        body = ""
        for i, row, visible in zip(self.losses, self.largest, self.visible, strict=True):
            cells = "".join(
                f'<td class="{_cell_class(x, allowed)}">{"0" if x == 0 else f"{x:.1e}"}</td>'
                for x, allowed in zip(row, visible, strict=True)
            )
            body += f"<tr><th>{escape(self.names[i])}</th>{cells}</tr>"
        return (
            "<h3>largest gradient of each branch's loss at the tokens of each branch</h3>"
            f'<div class="wide"><table class="gradients"><tr><th>loss of</th>{head}</tr>{body}</table></div>'
        )


def _cell_class(gradient: float, visible: bool) -> str:
    if (gradient != 0) != visible:
        return "leak"
    return "visible" if visible else "hidden"


def gradient_tables(setup: Setup, rows: list[Mapping[str, np.ndarray]], *, seed: int) -> list[GradientTable]:
    """A table for each row, from the whole model of a training run with random parameters.

    `rows`: arrays of packing/schema.py without the batch dimension. `seed`: of the parameters.
    """
    run = dataclasses.replace(setup.run, token_order="contiguous")  # gradients are read by token index
    with jax.set_mesh(setup.mesh):
        model = setup.structure.model(init_params(setup.structure, seed))

        @jax.jit
        def token_gradients(row):
            def loss(x_BSD):
                return model.losses_from_embeddings(x_BSD, row, run).cross_entropy

            return abs(jax.grad(loss)(model.embed(row, run))).max(-1)

        return [_table_of_row(row, lambda one: token_gradients(sharding.put_rows(one, setup.mesh))) for row in rows]


def _table_of_row(
    row: Mapping[str, np.ndarray], token_gradients: Callable[[Mapping[str, np.ndarray]], jax.Array]
) -> GradientTable:
    """The table of one row. `token_gradients`: a batch of one row -> float32[1, S], absolute values."""
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
