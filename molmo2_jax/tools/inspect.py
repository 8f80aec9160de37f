"""The page of `molmo2 inspect`: packed rows to look at, in one HTML file that needs nothing but a browser.

A row is shown as it reaches the model: who sees whom as a picture, every token with its kind, weight and branch, every
crop as it is cut, and the points that the answers name drawn where the numbers put them. Text of records is data: it is
escaped wherever it stands and never becomes markup.
"""

import base64
import dataclasses
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from molmo2_jax.data.schema import FIELDS
from molmo2_jax.text.tokenizer import Tokenizer
from molmo2_jax.tools import film, mask_picture
from molmo2_jax.tools.branch_gradients import GradientTable
from molmo2_jax.tools.compare import Answer
from molmo2_jax.tools.row_view import Branch, ExampleView, read_row
from molmo2_jax.tools.token_spans import TokenSpans

MASK_PIXELS = 768  # the mask's picture has at most this many pixels a side
TEMPLATE = Path(__file__).with_name("inspect.html")


def write_page(
    path: str | Path,
    *,
    rows: Sequence[dict[str, np.ndarray]],
    tok: Tokenizer,
    title: str,
    answers: Sequence[Answer] = (),
    gradients: Sequence[GradientTable] = (),
) -> None:
    """Write a self-contained page of packed rows and, if there are any, of generated answers beside annotated ones.

    `rows`: arrays of data/schema.py without the batch dimension (see `unbatch`). An answer's points are drawn on the
    views of the first example that holds its prompt. `gradients` holds a table for each of the rows, or for none. The
    folder of `path` is made if need be.
    """
    seen = [Seen.read(number, row, tok) for number, row in enumerate(rows)]
    parts = [_answers(answers, seen, tok)] if answers else []
    for one, table in zip(seen, gradients or [None] * len(seen), strict=True):
        parts.append(_row(one, tok, "" if table is None else table.html()))
    head, middle, tail = TEMPLATE.read_text(encoding="utf-8").split("<!--FILL-->")
    page = head + escape(title) + middle + "".join(parts) + tail
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", errors="replace")


def unbatch(batch: dict) -> list[dict[str, np.ndarray]]:
    """A batch of the loader -> its rows: [B, ...] arrays without B; what is no array of the row is left out."""
    return [{name: batch[name][b] for name in FIELDS} for b in range(len(batch["tokens"]))]


@dataclasses.dataclass(frozen=True)
class Seen:
    """A row, what `row_view` reads in it, and a hue in degrees for every branch of every example."""

    number: int
    row: dict[str, np.ndarray]
    examples: list[ExampleView]
    hues: list[list[int]]

    @classmethod
    def read(cls, number: int, row: dict[str, np.ndarray], tok: Tokenizer) -> "Seen":
        """Reads row `number` of the page. ValueError when its `visible_until` is none a packer writes."""
        examples = read_row(row, tok)
        hues, count = [], 0
        for example in examples:
            hues.append([int(200 + (count + b) * 137.5) % 360 for b in range(len(example.branches))])
            count += len(example.branches)
        return cls(number, row, examples, hues)

    @property
    def length(self) -> int:
        """Tokens a row can hold."""
        return len(self.row["tokens"])

    @property
    def used(self) -> int:
        """Tokens it holds."""
        return self.examples[-1].stop if self.examples else 0

    def parts(self) -> list[tuple[int, Branch, int, str]]:
        """(example, branch, hue, id in the page) of every branch of the row."""
        return [
            (e, part, self.hues[e][b], f"r{self.number}e{e}b{b}")
            for e, example in enumerate(self.examples)
            for b, part in enumerate(example.branches)
        ]


def _row(seen: Seen, tok: Tokenizer, below: str) -> str:
    """One row as a section: counts, fill, examples with their films and tokens, the mask, and what comes below."""
    block = -(-seen.length // MASK_PIXELS)
    tiles = mask_picture.tile_counts(seen.row["visible_until"], seen.row["image_group"], block)
    picture = mask_picture.png(mask_picture.mask_pixels(*tiles, seen.length, block))
    spans = TokenSpans(seen.row, tok)
    cards = [_example(seen, index, spans) for index in range(len(seen.examples))]
    if seen.used < seen.length:
        cards.append(f'<article class="example padding">{seen.length - seen.used:,} × padding</article>')
    runs = json.dumps(_runs(seen.row), separators=(",", ":"))
    return (
        f'<section class="row" id="row-{seen.number}" data-runs="{escape(runs)}"><h2>row {seen.number}</h2>'
        f"{_counts(seen, (tiles[0].sum() + tiles[1].sum()) / seen.length**2)}{_fill(seen)}"
        f'<div class="columns"><div class="examples">{"".join(cards)}</div>'
        f"<aside>{_mask(seen, block, picture)}</aside></div>{below}</section>"
    )


def _counts(seen: Seen, allowed: float) -> str:
    weights, slots = seen.row["loss_weights"], seen.row["visual_slots"]
    facts = [
        (f"{seen.used:,} of {seen.length:,}", f"tokens, {seen.used / seen.length:.1%} full"),
        (f"{len(seen.examples)}", "example" if len(seen.examples) == 1 else "examples"),
        (f"{len(seen.parts())}", "branch" if len(seen.parts()) == 1 else "branches"),
        (f"{(weights > 0).sum():,}", f"learned targets, weight {weights.sum():.2f}"),
        (f"{sum(len(e.views) for e in seen.examples)} of {len(seen.row['crops'])}", "crops"),
        (f"{(slots < seen.length).sum():,} of {len(slots):,}", "pooled tokens"),
        (f"{allowed:.1%}", "of pairs allowed"),
    ]
    return '<ul class="facts">' + "".join(f"<li><b>{a}</b> {b}</li>" for a, b in facts) + "</ul>"


def _fill(seen: Seen) -> str:
    """A bar of the row: one piece per branch, as long as it has tokens. Click one to see its tokens alone."""
    pieces = [
        f'<button class="piece" data-branch="{ident}" style="--h:{hue};flex-grow:{part.stop - part.start}" '
        f'title="example {e}, {part.name}: {part.stop - part.start:,} tokens">{part.name}</button>'
        for e, part, hue, ident in seen.parts()
    ]
    rest = seen.length - seen.used
    pieces.append(f'<span class="rest" style="flex-grow:{rest}" title="{rest:,} × padding"></span>' if rest else "")
    return f'<div class="fill">{"".join(pieces)}</div>'


def _example(seen: Seen, index: int, spans: TokenSpans) -> str:
    example, weights = seen.examples[index], seen.row["loss_weights"]
    blocks = []
    for e, part, hue, ident in seen.parts():
        if e == index:
            counts = f"{part.stop - part.start:,} tokens, {(weights[part.start : part.stop] > 0).sum():,} learned"
            blocks.append(
                f'<div class="branch" id="{ident}" style="--h:{hue};--depth:{part.depth}">'
                f'<h4><b>{part.name}</b> {counts}</h4><p class="tokens">{spans.branch(part)}</p></div>'
            )
    silent = "" if example.replies else ' <em class="silent">learns nothing</em>'
    return (
        f'<article class="example"><h3>example {index} <small>tokens {example.start}–{example.stop - 1}</small>{silent}'
        f"</h3>{film.film(seen.number, seen.row['crops'], example, seen.hues[index])}{''.join(blocks)}</article>"
    )


def _runs(row: dict[str, np.ndarray]) -> list[list[int]]:
    """[start, visible_until, image_group] of every run of equal ones: all the script needs to know who sees whom."""
    pair = np.stack([row["visible_until"], row["image_group"]])
    starts = np.flatnonzero(np.concatenate([[True], (pair[:, 1:] != pair[:, :-1]).any(axis=0)]))
    return [[int(start), int(pair[0, start]), int(pair[1, start])] for start in starts]


def _mask(seen: Seen, block: int, picture: bytes) -> str:
    """The mask with its axes: a strip of branches and the examples' numbers. Units of the SVG are tokens."""
    length, margin = seen.length, seen.length * 0.06
    bar = margin * 0.35
    marks = []
    for _, part, hue, _ in seen.parts():
        size, fill = part.stop - part.start, f"hsl({hue} 65% 55%)"
        marks.append(f'<rect x="{-bar:.1f}" y="{part.start}" width="{bar:.1f}" height="{size}" fill="{fill}"/>')
        marks.append(f'<rect x="{part.start}" y="{-bar:.1f}" width="{size}" height="{bar:.1f}" fill="{fill}"/>')
    for index, example in enumerate(seen.examples):
        if example.stop - example.start > margin * 0.4:
            middle, font = (example.start + example.stop) / 2, f'font-size="{margin * 0.5:.1f}" text-anchor="middle"'
            marks.append(f'<text x="{middle}" y="{-margin * 0.5:.1f}" {font}>{index}</text>')
            marks.append(f'<text x="{-margin * 0.7:.1f}" y="{middle + margin * 0.17:.1f}" {font}>{index}</text>')
    side, view = -(-length // block) * block, f"{-margin:.1f} {-margin:.1f} {length + margin:.1f} {length + margin:.1f}"
    uri = "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
    scale = "one pixel a pair" if block == 1 else f"one pixel {block} × {block} pairs"
    return (
        f'<h3>who sees whom</h3><svg class="mask" data-length="{length}" viewBox="{view}">'
        f'<image class="pairs" width="{side}" height="{side}" preserveAspectRatio="none" href="{uri}"/>'
        f'<rect class="frame" width="{length}" height="{length}"/>{"".join(marks)}</svg>'
        f'<p class="legend"><span class="causal"></span> causal <span class="bidirectional"></span> same image group, '
        f"both directions. Down: queries; across: keys; numbers: examples; {scale}.</p>"
        f'<p class="reading" aria-live="polite">Point at the mask, or click a token to see what it sees.</p>'
    )


def _answers(answers: Sequence[Answer], rows: Sequence[Seen], tok: Tokenizer) -> str:
    """Annotated and generated answers, each with the views of the first example that asks its prompt."""
    texts = [
        (seen.number, example, tok.decode(seen.row["tokens"][example.start : example.stop].tolist()))
        for seen in rows
        for example in seen.examples
    ]
    cards = []
    for answer in answers:
        number, example = next(((n, e) for n, e, text in texts if answer.prompt in text), (0, None))
        cards.append(film.answer_card(answer, number, example))
    equal = sum(answer.annotated == answer.generated for answer in answers)
    return (
        f'<section class="answers"><h2>answers</h2><p>{equal} of {len(answers)} generated answers equal the annotated '
        f'ones. <span class="key annotated">○ annotated</span> <span class="key generated">× generated</span></p>'
        f"{''.join(cards)}</section>"
    )
