"""Metrics of a run to TensorBoard and to a JSON-lines file, one line a logged step; on a terminal, a progress bar."""

import json
import os
import pathlib
import sys
from collections.abc import Mapping

import jax
import tensorboardX
import tqdm


class MetricWriter:
    """Writes `workdir/metrics.jsonl` and TensorBoard events beside it. A resumed run appends after its first step."""

    def __init__(self, workdir: pathlib.Path, *, first_step: int, steps: int):
        self._chief = jax.process_index() == 0  # the hosts of a pod share the workdir: one of them writes
        path = workdir / "metrics.jsonl" if self._chief else pathlib.Path(os.devnull)
        if self._chief:
            _drop_lines_after(path, first_step)
        self._lines = path.open("a")
        self._board = tensorboardX.SummaryWriter(str(workdir), purge_step=first_step + 1, write_to_disk=self._chief)
        shown = self._chief and sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=steps, initial=first_step, unit="step", dynamic_ncols=True, disable=not shown)

    def advance(self, step: int) -> None:
        self._bar.update(step - self._bar.n)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        shown = f"loss {values['loss']:.4f}  {values['tokens_per_second']:.0f} tok/s  mfu {values['mfu']:.1%}"
        if not self._bar.disable:
            self._bar.set_postfix_str(shown)
        elif self._chief:
            print(f"step {step}  {shown}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()
        self._lines.close()
        self._board.close()


def _drop_lines_after(path: pathlib.Path, step: int) -> None:
    """Lines of steps that a run killed after its last checkpoint will do again. A torn last line goes, too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # written when the run was killed
            break
        if entry["step"] <= step:
            kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept))
    temporary.replace(path)
