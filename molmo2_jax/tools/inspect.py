"""The page of `molmo2 inspect`: packed rows to look at, in one HTML file that needs nothing but a browser.

A row is shown as it reaches the model: who sees whom as a picture, every token with its kind, weight and branch, every
crop as it is cut, and the points that the answers name drawn where the numbers put them.

    page/page.html  with  TITLE  page.css  GRADIENT TABLES  DATA (JSON)  elements.js tokens.js player.js row.js page.js

The data are lists and texts, which the script draws as texts: what a record says never becomes markup.
"""

import base64
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from molmo2_jax.data.schema import FIELDS
from molmo2_jax.text.tokenizer import Tokenizer
from molmo2_jax.tools import film, mask_picture, token_stream
from molmo2_jax.tools.branch_gradients import GradientTable
from molmo2_jax.tools.compare import Answer
from molmo2_jax.tools.row_view import ExampleView, crops_by_token, read_row
from molmo2_jax.tools.thumbnails import thumbnails

MASK_PIXELS = 768  # the mask's picture has at most this many pixels a side
UNKNOWN = "unknown"  # the dataset of examples that come without their names
PAGE = Path(__file__).with_name("page")
SCRIPTS = ("elements.js", "tokens.js", "player.js", "row.js", "page.js")  # each uses those before it

Names = Sequence[Mapping[str, str | None]]  # of a row's examples, in order: "dataset", "id", "failed" (reason or None)


def write_page(
    path: str | Path,
    *,
    rows: Sequence[dict[str, np.ndarray]],
    tok: Tokenizer,
    title: str,
    examples: Sequence[Names] = (),
    answers: Sequence[Answer] = (),
    gradients: Sequence[GradientTable] = (),
    vision_shards: int = 1,
) -> None:
    """Write a self-contained page of packed rows and, if there are any, of generated answers beside annotated ones.

    `rows`: arrays of data/schema.py without the batch dimension (see `unbatch`), cut into `vision_shards`. `examples`
    and `gradients` hold the names of each row's examples and a table of it, or nothing for any. An answer's points are
    drawn on the views of the first example that holds its prompt. The folder of `path` is made if need be.

    Raises ValueError, before anything is written, where a row is none a packer writes or names do not fit its examples.
    """
    data = page_data(rows, tok, examples, answers, vision_shards)
    tables = "".join(
        f'<div class="gradient-table" id="gradients-{number}">{table.html()}</div>'
        for number, table in enumerate(gradients)
    )
    # "<" is the one character that could end the script element; JSON has another spelling for it.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    style, template = _read_part("page.css"), _read_part("page.html").split("<!--FILL-->")
    fills = [escape(title), style, tables, text, "".join(map(_read_part, SCRIPTS)), ""]
    page = "".join(part + fill for part, fill in zip(template, fills, strict=True))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", errors="replace")


def _read_part(name: str) -> str:
    return (PAGE / name).read_text(encoding="utf-8")


def unbatch(batch: dict) -> list[dict[str, np.ndarray]]:
    """A batch of the loader -> its rows: [B, ...] arrays without B; what is no array of the row is left out."""
    return [{name: batch[name][b] for name in FIELDS} for b in range(len(batch["tokens"]))]


@dataclasses.dataclass(frozen=True)
class Seen:
    """A row and what `row_view` reads in it; `names` has one entry for each example."""

    row: dict[str, np.ndarray]
    examples: list[ExampleView]
    names: Names
    crop_of: np.ndarray

    @property
    def length(self) -> int:
        """Tokens a row can hold."""
        return len(self.row["tokens"])

    @property
    def used(self) -> int:
        """Tokens it holds."""
        return self.examples[-1].stop if self.examples else 0

    def shown(self) -> list[int]:
        """The crops that the page shows, each once."""
        views = [view for example in self.examples for view in example.views]
        return list(dict.fromkeys(c for view in views for c in (view.crop, *(tile.crop for tile in view.tiles))))


def page_data(
    rows: Sequence[dict[str, np.ndarray]],
    tok: Tokenizer,
    examples: Sequence[Names] = (),
    answers: Sequence[Answer] = (),
    vision_shards: int = 1,
) -> dict:
    """Everything that the page's script draws, as what JSON can hold; arguments as of `write_page`.

    rows       see `row_data`
    datasets   see `dataset_totals`
    answers    see `film.answer_card`
    vocabulary {id: text} of every token and target
    pictures   data URIs; `crops` of a row maps crops to places in this list
    side       pixels a side of the pictures, where a crop has 378
    """
    seen = [_seen(n, row, examples[n] if examples else None, tok, vision_shards) for n, row in enumerate(rows)]
    pictures, side = thumbnails([one.row["crops"][c] for one in seen for c in one.shown()])
    data, place = [], 0
    for one in seen:
        crops = {crop: place + n for n, crop in enumerate(one.shown())}
        place += len(crops)
        data.append(row_data(one, tok) | {"crops": crops})
    used = np.concatenate([one.row[name][: one.used] for one in seen for name in ("tokens", "targets")])
    return {
        "rows": data,
        "datasets": dataset_totals(seen),
        "answers": _answers(answers, seen, tok),
        "vocabulary": token_stream.vocabulary(used, tok),
        "pictures": pictures,
        "side": side,
    }


def _seen(number: int, row: dict[str, np.ndarray], names: Names | None, tok: Tokenizer, vision_shards: int) -> Seen:
    found = read_row(row, tok, vision_shards)
    if names is None:
        names = [{"dataset": UNKNOWN, "id": None, "failed": None}] * len(found)
    if len(names) != len(found):
        raise ValueError(f"row {number} holds {len(found)} examples, but {len(names)} are named")
    return Seen(row, found, names, crops_by_token(row, vision_shards))


def row_data(seen: Seen, tok: Tokenizer) -> dict:
    """One row: counts, examples (names, branches and what `film` gives), tokens (`token_stream`) and the mask.

    A branch is [name, start, stop, depth, learned targets]. `allowed` is the share of pairs that see each other.
    """
    row, weights = seen.row, seen.row["loss_weights"]
    block = -(-seen.length // MASK_PIXELS)
    tiles = mask_picture.tile_counts(row["visible_until"], row["image_group"], block)
    picture = mask_picture.png(mask_picture.mask_pixels(*tiles, seen.length, block))
    examples = []
    for example, names in zip(seen.examples, seen.names, strict=True):
        parts = [[b.name, b.start, b.stop, b.depth, _learned(weights[b.start : b.stop])] for b in example.branches]
        where = {"start": example.start, "stop": example.stop, "branches": parts}
        examples.append({name: names[name] for name in ("dataset", "id", "failed")} | where | film.film(example))
    slots = row["visual_slots"]
    return {
        "length": seen.length,
        "used": seen.used,
        "learned": _learned(weights),
        "weight": float(weights.sum()),
        "budgets": {
            "crops": [len(np.unique(seen.crop_of[seen.crop_of >= 0])), len(row["crops"])],
            "pooled tokens": [int((slots < seen.length).sum()), len(slots)],
        },
        "examples": examples,
        "stream": token_stream.token_stream(row, tok, seen.crop_of),
        "mask": "data:image/png;base64," + base64.b64encode(picture).decode("ascii"),
        "block": block,
        "allowed": float((tiles[0].sum() + tiles[1].sum()) / seen.length**2),
    }


def dataset_totals(rows: Iterable[Seen]) -> list[dict]:
    """Examples, failures, tokens, learned targets and their weight of each dataset, most learned targets first."""
    totals: dict[str, dict] = {}
    for seen in rows:
        for example, names in zip(seen.examples, seen.names, strict=True):
            name, weights = names["dataset"], seen.row["loss_weights"][example.start : example.stop]
            sums = totals.setdefault(name, dict.fromkeys(("examples", "failed", "tokens", "learned", "weight"), 0))
            sums["examples"] += 1
            sums["failed"] += names["failed"] is not None
            sums["tokens"] += example.stop - example.start
            sums["learned"] += _learned(weights)
            sums["weight"] += float(weights.sum())
    listed = [{"name": name, **sums} for name, sums in totals.items()]
    return sorted(listed, key=lambda one: (-one["learned"], one["name"]))


def _learned(weights: np.ndarray) -> int:
    return int((weights > 0).sum())


def _answers(answers: Sequence[Answer], rows: Sequence[Seen], tok: Tokenizer) -> list[dict]:
    """Each answer with the first example that asks its prompt."""
    texts = [
        ((n, e), example, tok.decode(seen.row["tokens"][example.start : example.stop].tolist()))
        for n, seen in enumerate(rows if answers else ())
        for e, example in enumerate(seen.examples)
    ]
    cards = []
    for answer in answers:
        place, views = next(((p, ex.views) for p, ex, text in texts if answer.prompt in text), (None, []))
        cards.append(film.answer_card(answer, place, views))
    return cards
