"""Metrics of a run: TensorBoard, a JSON-lines file with one line per logged step, and a progress bar on a terminal."""

import json
import os
import pathlib
import sys
from collections.abc import Mapping

import jax
import tensorboardX
import tqdm


class MetricWriter:
    """Writes `workdir/metrics.jsonl`, and TensorBoard events next to it.

    Args:
      first_step: the step of the checkpoint that the run continues from, or 0. Lines of later steps are dropped.
    """

    def __init__(self, workdir: pathlib.Path, *, first_step: int, steps: int):
        self._writes = jax.process_index() == 0  # all processes share the workdir, so one of them writes
        path = workdir / "metrics.jsonl" if self._writes else pathlib.Path(os.devnull)
        if self._writes:
            _drop_lines_after(path, first_step)
        self._lines = path.open("a")
        self._board = tensorboardX.SummaryWriter(str(workdir), purge_step=first_step + 1, write_to_disk=self._writes)
        shown = self._writes and sys.stderr.isatty()
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
        elif self._writes:
            print(f"step {step}  {shown}", file=sys.stderr, flush=True)

    def close(self) -> None:
        self._bar.close()
        self._lines.close()
        self._board.close()


def _drop_lines_after(path: pathlib.Path, step: int) -> None:
    """Drops the lines of steps after `step`, which the run repeats, and a last line that is incomplete."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the run was killed while it wrote this line
            break
        if entry["step"] <= step:
            kept.append(line)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept))
    temporary.replace(path)
