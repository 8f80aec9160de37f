"""Writes docs/tour.md: one record followed from its JSON line to the loss, with the values that the code gives.

    python -m scripts.tour

A test compares the page with what this script gives, so that the page stays true.
"""

import dataclasses
import json
import pathlib
import textwrap
from collections.abc import Iterable

import jax
import numpy as np

from data_pipelines.loading.data import Data
from data_pipelines.loading.draws import Draw
from data_pipelines.packing.schema import FIELDS
from data_pipelines.prompts import PromptConfig
from data_pipelines.records.read import Record
from data_pipelines.sequence.example import Example, first_turns
from data_pipelines.sequence.view_config import ViewConfig
from data_pipelines.text.tokenizer import Tokenizer
from molmo2_jax import sharding
from molmo2_jax.train.config import read
from molmo2_jax.train.experiment import load_config
from molmo2_jax.train.setup import Setup, open_data, set_up
from molmo2_jax.train.step import make_state
from molmo2_jax.weights.init_from import initial_params

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tour.md"
EXPERIMENT = "experiments/overfit_video_point.py"
WIDTH = 116


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The Markdown of the tour."""
    c = read(load_config(str(ROOT / EXPERIMENT)).to_dict())
    setup = set_up(c, jax.devices()[:1])
    data = open_data(c, setup.architecture)
    (name,) = data.datasets
    line = (ROOT / "experiments" / "street" / "overfit.jsonl").read_text(encoding="utf-8")
    record = data.datasets[name].record(0)
    (example,) = data.describe(Draw(name, 0, 0), c.seed)
    with jax.set_mesh(setup.mesh):
        params, _ = initial_params(setup.structure, setup.mesh, c.init_from, c.seed)
    batch = data.first_batch(seed=c.seed, rows=1, streams=c.batch)
    return "\n".join(
        [
            _INTRODUCTION,
            _json_line(line),
            _record(record),
            _turns(record, c.data.view, c.data.prompts),
            _tokens(example, data.tok),
            _example(example),
            _row({field: batch[field][0] for field in FIELDS}, data.tok),
            _batch(batch),
            _loss(setup, params, batch),
            _next(data),
        ]
    )


_INTRODUCTION = f"""# A tour: one record, from a JSON line to the loss

This page is written by `python -m scripts.tour`, which runs the code; a test keeps it current. It follows the record of
`{EXPERIMENT}`: a clip of 4.4 seconds with three questions. Each section names the file to read.
"""


def _section(title: str, file: str, text: str, *blocks: str) -> str:
    fenced = "\n\n".join(textwrap.indent(block, "    ") for block in blocks)
    paragraph = textwrap.fill(f"`{file}`: {text}", 120, break_long_words=False, break_on_hyphens=False)
    return f"## {title}\n\n{paragraph}\n\n{fenced}\n"


def _json_line(line: str) -> str:
    raw = json.loads(line)
    head = {key: value for key, value in raw.items() if key != "messages"}
    messages = [json.dumps(message, ensure_ascii=False) for message in raw["messages"]]
    shown = [json.dumps(head, ensure_ascii=False)[:-1] + ', "messages": [', *(f"  {m}," for m in messages), "]}"]
    text = "one example a line. Times are seconds of the video, x and y are pixels of its frame."
    return _section("1. The JSON line", "experiments/street/overfit.jsonl", text, "\n".join(map(_wrap, shown)))


def _record(record: Record) -> str:
    (video,) = record.media
    message = record.messages[0]
    points = [f"Point(key={p.key:.2f}, x={p.x:.4f}, y={p.y:.4f})" for p in message.answer.points]
    text = (
        "the line as typed values. The video was probed; times now count from the clip's start, and x and y are "
        "fractions of the frame, whatever units the line used."
    )
    media = f"VideoMedium(width={video.width}, height={video.height}, duration={video.duration}, start={video.start}, "
    media += f"end={video.end})"
    annotation = f"Message(style={message.style!r}, answer=Points(label={message.answer.label!r}, points=(\n    "
    return _section(
        "2. Annotations", "data_pipelines/records/read.py", text, media, annotation + ",\n    ".join(points) + "))"
    )


def _turns(record: Record, view: ViewConfig, prompts: PromptConfig) -> str:
    turns = first_turns(record, view, prompts, np.random.default_rng(0))
    text = (
        "what the user asks and what the model is to answer. Styles with templates are worded again each time an "
        "example is drawn."
    )
    blocks = [f"{_wrap('user       ' + turn.user)}\n{_wrap('assistant  ' + turn.answer)}" for turn in turns]
    return _section("3. Turns", "data_pipelines/prompts/turn.py", text, *blocks)


def _tokens(example: Example, tok: Tokenizer) -> str:
    turn = example.turns[0]
    text = (
        "each turn as token ids, between the control tokens of the chat format. Branches of the tree come in a drawn "
        "order; this one came first. The answer's EOS is added by the layout."
    )
    user = f"user    {len(turn.user)} tokens\n{_pieces(turn.user, tok)}"
    answer = f"answer  {len(turn.answer)} tokens\n{_pieces(turn.answer, tok)}"
    return _section("4. Tokens", "data_pipelines/text/chat_turns.py", text, user, answer)


def _pieces(ids: Iterable[int], tok: Tokenizer) -> str:
    ids = [int(i) for i in ids]
    return _wrap(" ".join(f"{_visible(piece)}:{i}" for piece, i in zip(tok.pieces(ids), ids, strict=True)))


def _visible(piece: str) -> str:
    """A token's text with its spaces and line ends to be seen."""
    return repr(piece.replace(" ", "␣"))


def _example(example: Example) -> str:
    (plan,) = example.media
    text = (
        "the whole example, planned and not decoded: which frames to show, how many tokens and crops that takes. "
        "Packing needs no more than these lengths (`data_pipelines/packing/pack.py`)."
    )
    times = ", ".join(f"{time:.2f}" for time in plan.times)
    lengths = f"n_tokens={example.n_tokens}  n_crops={example.n_crops}  n_pooled={example.n_pooled}"
    return _section(
        "5. The example", "data_pipelines/sequence/example.py", text, lengths, _wrap(f"frames at {times} s")
    )


def _row(row: dict[str, np.ndarray], tok: Tokenizer) -> str:
    text = (
        "the arrays of one row. The root (BOS, timestamps and frames) comes first, then the branches, then padding. "
        "The first columns, and those where the first answer begins."
    )
    shapes = "\n".join(f"{name:<14} {array.dtype.name}{list(array.shape)}" for name, array in row.items())
    begin = int(np.flatnonzero(row["loss_weights"])[0])
    return _section(
        "6. The row",
        "data_pipelines/packing/schema.py",
        text,
        shapes,
        _columns(row, tok, 0),
        _columns(row, tok, begin - 2),
    )


def _columns(row: dict[str, np.ndarray], tok: Tokenizer, start: int) -> str:
    """Eight tokens of a row, one a column."""
    span = slice(start, start + 8)
    lines = [("index", [str(i) for i in range(span.start, span.stop)])]
    for name in ("tokens", "targets"):
        lines.append((name, [_visible(piece) for piece in tok.pieces(row[name][span].tolist())]))
    for name in ("positions", "visible_until", "image_group"):
        lines.append((name, [str(x) for x in row[name][span].tolist()]))
    lines.append(("loss_weights", [f"{x:g}" for x in row["loss_weights"][span].tolist()]))
    widths = [max(len(cells[n]) for _, cells in lines) for n in range(8)]
    return "\n".join(
        f"{name:<14}" + "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        for name, cells in lines
    )


def _batch(batch: dict) -> str:
    text = (
        "rows of all streams, with crops decoded by worker processes, the examples they hold, and running counts. "
        "`molmo2_jax/sharding.py: put_rows` makes global arrays of them."
    )
    (count,) = batch["counts"].values()
    shown = [f"tokens    {batch['tokens'].dtype}{list(batch['tokens'].shape)}", f"examples  {batch['examples']}"]
    shown += [f"counts    {count}", f"failures  {batch['failures']}"]
    return _section("7. The batch", "data_pipelines/loading/loader.py", text, "\n".join(map(_wrap, shown)))


def _loss(setup: Setup, params: dict, batch: dict) -> str:
    with jax.set_mesh(setup.mesh):
        state = make_state(params, setup.assigned, setup.optimizer)
        rows = sharding.put_rows({name: batch[name] for name in FIELDS}, setup.mesh)
        _, metrics = setup.step(state, rows)
    text = (
        "one step of the tiny model with random weights: the weighted mean of the cross entropy over all answer "
        "tokens, close to ln 151,936 = 11.93, plus the z-loss; and the norm of each group's gradient."
    )
    shown = [f"{name:<24} {float(value):.3g}" for name, value in sorted(metrics.items())]
    return _section("8. The loss", "molmo2_jax/train/step.py", text, "\n".join(shown))


def _next(data: Data) -> str:
    names = [field.name for field in dataclasses.fields(data.settings[next(iter(data.settings))])]
    return f"""## Where to go from here

* Who sees whom, in one line: `molmo2_jax/ops/attention/mask.py`.
* The model: `molmo2_jax/models/molmo2.py`, then `vit.py`, `connector.py`, `llm.py`.
* The loop that repeats this: `molmo2_jax/train/loop.py`.
* A mixture of many datasets ({", ".join(f"`{name}`" for name in names)} of each): `experiments/_mixtures.py`.
* The same row as a page: `molmo2 inspect --config={EXPERIMENT} --out=page.html`.
"""


def _wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    main()
