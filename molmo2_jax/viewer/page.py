"""The page of `molmo2 inspect`: packed rows in one HTML file that needs nothing but a browser.

A row is shown as it reaches the model: its attention mask as a picture, every token with its kind, weight and branch,
every crop as it is cut, and the points of the answers at their coordinates.

    static/page.html  with  TITLE   STYLE: page.css   GRADIENTS: tables   DATA: JSON   SCRIPT: page.js and its imports

The data are lists and strings, which the script inserts as text nodes: a string of a record never becomes markup.
"""

import base64
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from data_pipelines.loading.data import Data
from data_pipelines.media.crops import CROP_SIZE
from data_pipelines.packing.schema import FIELDS
from data_pipelines.text.tokenizer import Tokenizer
from molmo2_jax.viewer import mask_picture, player_data, token_stream
from molmo2_jax.viewer.answers import Answer
from molmo2_jax.viewer.branch_gradients import GradientTable
from molmo2_jax.viewer.bundle import bundle
from molmo2_jax.viewer.row_reader import RowExample, crops_by_token, read_row
from molmo2_jax.viewer.thumbnails import thumbnails

MASK_PIXELS = 768  # the mask's picture has at most this many pixels along a side
TITLE_DATASETS = 3  # a title names at most this many datasets
UNKNOWN = "unknown"  # the dataset of examples without names
STATIC = Path(__file__).with_name("static")
PLACEHOLDER = re.compile(r"<!--([A-Z]+)-->")

# "dataset", "id" and "failed" (why it has no loss, else None) of each example of a row, in order.
ExampleNames = Sequence[Mapping[str, str | None]]


def render_page(
    *,
    rows: Sequence[dict[str, np.ndarray]],
    tok: Tokenizer,
    title: str,
    examples: Sequence[ExampleNames] = (),
    answers: Sequence[Answer] = (),
    gradients: Sequence[GradientTable] = (),
    vision_shards: int = 1,
) -> str:
    """A self-contained HTML page of packed rows and, if there are any, of generated answers next to annotated ones.

    Args:
      rows: arrays of packing/schema.py without the batch dimension, see `unbatch`.
      tok: the tokenizer that made the rows.
      title: see `page_title`.
      examples: the names of each row's examples, or nothing.
      answers: their points are drawn on the pictures of the first example that has the prompt.
      gradients: a table for each row, or nothing.
      vision_shards: the number of equal parts of a row's crops.

    Raises:
      ValueError: no packer writes such a row, or the names do not match its examples.
    """
    data = page_data(rows, tok, examples, answers, vision_shards)
    tables = "".join(
        f'<div class="gradient-table" id="gradients-{number}">{table.html()}</div>'
        for number, table in enumerate(gradients)
    )
    fills = {
        "TITLE": escape(title),
        "STYLE": _read_static("page.css"),
        "GRADIENTS": tables,
        # "<" could end the script element; JSON has another spelling for it.
        "DATA": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        "SCRIPT": bundle(STATIC, "page.js"),
    }
    return PLACEHOLDER.sub(lambda found: fills[found[1]], _read_static("page.html"))


def render_batch(
    batch: Mapping[str, np.ndarray],
    data: Data,
    *,
    experiment: str,
    vision_shards: int,
    answers: Sequence[Answer] = (),
    gradients: Sequence[GradientTable] = (),
) -> str:
    """`render_page` of a batch that a loader of `data` gave; `experiment` is named in the title."""
    return render_page(
        rows=unbatch(batch),
        tok=data.tok,
        title=page_title(experiment, list(data.settings)),
        examples=batch["examples"],
        answers=answers,
        gradients=gradients,
        vision_shards=vision_shards,
    )


def write_page(path: str | Path, page: str) -> None:
    """Writes a page to an HTML file, whose folder is created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", errors="replace")


def page_title(experiment: str, datasets: Sequence[str]) -> str:
    """The experiment and at most three of its datasets: "stage2_sft: a, b, c and 115 more"."""
    more = len(datasets) - TITLE_DATASETS
    return f"{experiment}: {', '.join(datasets[:TITLE_DATASETS])}" + (f" and {more} more" if more > 0 else "")


def _read_static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def unbatch(batch: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The rows of a batch of the loader: [B, ...] arrays without B. Entries that are not in FIELDS are dropped."""
    return [{name: batch[name][b] for name in FIELDS} for b in range(len(batch["tokens"]))]


@dataclasses.dataclass(frozen=True)
class RowPage:
    """A row and what `read_row` finds in it. `names` has one entry for each example."""

    row: dict[str, np.ndarray]
    examples: list[RowExample]
    names: ExampleNames
    crop_of_S: np.ndarray  # int64[S], see `crops_by_token`

    @property
    def length(self) -> int:
        """S, the tokens that the row has room for."""
        return len(self.row["tokens"])

    @property
    def used(self) -> int:
        """Tokens of its examples."""
        return self.examples[-1].stop if self.examples else 0

    def crops(self) -> list[int]:
        """The crops that the page shows, without repetition."""
        pictures = [picture for example in self.examples for picture in example.pictures]
        return list(dict.fromkeys(c for p in pictures for c in (p.crop, *(detail.crop for detail in p.detail_crops))))


def page_data(
    rows: Sequence[dict[str, np.ndarray]],
    tok: Tokenizer,
    examples: Sequence[ExampleNames] = (),
    answers: Sequence[Answer] = (),
    vision_shards: int = 1,
) -> dict:
    """Everything that the page's script draws, as JSON values. For the arguments see `render_page`.

    rows         see `row_data`
    datasets     see `dataset_totals`
    answers      see `player_data.answer_card`
    vocabulary   {id: text} of every token and target
    crop_images  data URIs; `crops` of a row maps its crops to indices into this list
    crop_size    pixels along a side of a crop
    image_size   pixels along a side of the images
    """
    pages = [_read_page(n, row, examples[n] if examples else None, tok, vision_shards) for n, row in enumerate(rows)]
    images, image_size = thumbnails([page.row["crops"][c] for page in pages for c in page.crops()])
    data, first = [], 0  # first: index of the row's first image
    for page in pages:
        crops = {crop: first + n for n, crop in enumerate(page.crops())}
        first += len(crops)
        data.append(row_data(page, tok) | {"crops": crops})
    ids = np.concatenate([page.row[name][: page.used] for page in pages for name in ("tokens", "targets")])
    return {
        "rows": data,
        "datasets": dataset_totals(pages),
        "answers": _answer_cards(answers, pages, tok),
        "vocabulary": token_stream.vocabulary(ids, tok),
        "crop_images": images,
        "crop_size": CROP_SIZE,
        "image_size": image_size,
    }


def _read_page(
    number: int, row: dict[str, np.ndarray], names: ExampleNames | None, tok: Tokenizer, vision_shards: int
) -> RowPage:
    found = read_row(row, tok, vision_shards)
    if names is None:
        names = [{"dataset": UNKNOWN, "id": None, "failed": None}] * len(found)
    if len(names) != len(found):
        raise ValueError(f"row {number} has {len(found)} examples, but names of {len(names)}")
    return RowPage(row, found, names, crops_by_token(row, vision_shards))


def row_data(page: RowPage, tok: Tokenizer) -> dict:
    """One row: counts, examples (names, branches and `player_data.example_data`), tokens (`token_stream`) and mask.

    A branch is [name, start, stop, depth, supervised targets]. `allowed` is the share of pairs that the mask allows.
    """
    row, weights = page.row, page.row["loss_weights"]
    block = -(-page.length // MASK_PIXELS)
    tiles = mask_picture.tile_counts(row["visible_until"], row["image_group"], block)
    png = mask_picture.png(mask_picture.mask_pixels(*tiles, page.length, block))
    examples = []
    for example, names in zip(page.examples, page.names, strict=True):
        parts = [[b.name, b.start, b.stop, b.depth, _supervised(weights[b.start : b.stop])] for b in example.branches]
        named = {name: names[name] for name in ("dataset", "id", "failed")}
        span = {"start": example.start, "stop": example.stop, "branches": parts}
        examples.append(named | span | player_data.example_data(example))
    slots = row["visual_slots"]
    return {
        "length": page.length,
        "used": page.used,
        "supervised": _supervised(weights),
        "weight": float(weights.sum()),
        "budgets": {
            "crops": [len(np.unique(page.crop_of_S[page.crop_of_S >= 0])), len(row["crops"])],
            "pooled tokens": [int((slots < page.length).sum()), len(slots)],
        },
        "examples": examples,
        "stream": token_stream.token_stream(row, tok, page.crop_of_S),
        "mask": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        "block": block,
        "allowed": float((tiles[0].sum() + tiles[1].sum()) / page.length**2),
    }


def dataset_totals(pages: Iterable[RowPage]) -> list[dict]:
    """Examples, failures, tokens, supervised targets and their weight by dataset, most supervised targets first."""
    totals: dict[str, dict] = {}
    for page in pages:
        for example, names in zip(page.examples, page.names, strict=True):
            name, weights = names["dataset"], page.row["loss_weights"][example.start : example.stop]
            sums = totals.setdefault(name, dict.fromkeys(("examples", "failed", "tokens", "supervised", "weight"), 0))
            sums["examples"] += 1
            sums["failed"] += names["failed"] is not None
            sums["tokens"] += example.stop - example.start
            sums["supervised"] += _supervised(weights)
            sums["weight"] += float(weights.sum())
    listed = [{"name": name, **sums} for name, sums in totals.items()]
    return sorted(listed, key=lambda dataset: (-dataset["supervised"], dataset["name"]))


def _supervised(weights: np.ndarray) -> int:
    return int((weights > 0).sum())


def _answer_cards(answers: Sequence[Answer], pages: Sequence[RowPage], tok: Tokenizer) -> list[dict]:
    """Each answer with the first example that has its prompt."""
    texts = [
        ((r, e), example, tok.decode(page.row["tokens"][example.start : example.stop].tolist()))
        for r, page in enumerate(pages if answers else ())
        for e, example in enumerate(page.examples)
    ]
    cards = []
    for answer in answers:
        found = ((index, example.pictures) for index, example, text in texts if answer.prompt in text)
        asked_in, pictures = next(found, (None, []))
        cards.append(player_data.answer_card(answer, asked_in, pictures))
    return cards
