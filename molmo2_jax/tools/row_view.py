"""A packed row read back as people think of it: examples, branches, views (frames, images), subtitles and answers.

Everything here is found in the arrays of data/schema.py and nowhere else, so that it shows what a model is trained on,
not what the code that built the row meant.

    token          1 v v | a b x y | c d w | 1 e z | -
    visible_until  A A A   7 7 7 7   A A A   D D D   0
    examples       0 ..................... | 1 ....        where one ends, the next begins
    branches       root    A         B       root          runs of equal visible_until, named by their place in the tree
    answers                  x y       w       z           runs of learned targets, without their EOS
"""

import dataclasses
import itertools
import re

import numpy as np

from molmo2_jax.data.schema import PATCHES
from molmo2_jax.data.views import MARGIN, PATCH, STEP, VIEW
from molmo2_jax.text.tokenizer import Tokenizer

OPENING = ("<low_res_im_start>", "<im_start>", "<frame_start>")
CLOSING = ("<im_end>", "<frame_end>")
CHAT = "<|im_start|>"  # what begins a message, hence ends the root's own text
TIMESTAMP = re.compile(r"(\d+\.\d+)\s*$")
SUBTITLES = "subtitle\n"  # what stands between the last frame and its subtitles
SUBTITLE = re.compile(r"(\d+\.\d) - (\d+\.\d) (.*)")


@dataclasses.dataclass(frozen=True)
class Branch:
    """Tokens [start, stop) of one run; `parent` is an index into the example's branches, None for its root."""

    name: str
    start: int
    stop: int
    depth: int
    parent: int | None


@dataclasses.dataclass(frozen=True)
class Tile:
    """A high-resolution crop, whose top left corner lies at (x, y) pixels of the image as it was resized."""

    crop: int
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class View:
    """A frame, or an image: `crop` shows it whole, squashed to a square, as the model sees it.

    `key` is what points name it by: seconds (float) or an image's number from 1 (int); None for a frame without a
    timestamp. `tiles` show an image in detail, where they lie in its `size`, (width, height) in pixels.
    """

    crop: int
    key: float | int | None
    caption: str
    tiles: tuple[Tile, ...] = ()
    size: tuple[int, int] = (VIEW, VIEW)


@dataclasses.dataclass(frozen=True)
class Subtitle:
    """A line said from `start` to `stop` seconds; both are None for text that stands there as it is."""

    start: float | None
    stop: float | None
    text: str


@dataclasses.dataclass(frozen=True)
class Reply:
    """A learned answer: its text and the index of its branch in the example."""

    branch: int
    text: str


@dataclasses.dataclass(frozen=True)
class ExampleView:
    """Tokens [start, stop) of a row, and what they hold."""

    start: int
    stop: int
    branches: list[Branch]
    views: list[View]
    subtitles: list[Subtitle]
    replies: list[Reply]


def read_row(row: dict[str, np.ndarray], tok: Tokenizer, vision_shards: int = 1) -> list[ExampleView]:
    """The examples of one row, in order. `vision_shards`: how many equal parts its crops and pooled tokens are cut in.

    ValueError when `visible_until` is none a packer writes, or a grid of visual tokens has not the crops it needs.
    """
    crop_of = crops_by_token(row, vision_shards)
    found = []
    for start, stop in example_bounds(row["visible_until"]):
        parts = branches(row["visible_until"], start, stop)
        seen = views(row, tok, crop_of, start, stop)
        said = subtitles(row, tok, start, stop)
        found.append(ExampleView(start, stop, parts, seen, said, replies(row, tok, parts)))
    return found


def example_bounds(until_S: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of each example: its first token is visible to its end. [4, 2, 4, 4, 6, 6, 0] -> (0, 4), (4, 6)."""
    bounds, start = [], 0
    while start < len(until_S) and until_S[start] > 0:
        stop = int(until_S[start])
        if not start < stop <= len(until_S) or (until_S[start:stop] > stop).any():
            raise ValueError(f"token {start} begins an example, but its visible_until is {stop}")
        bounds.append((start, stop))
        start = stop
    return bounds


def branches(until_S: np.ndarray, start: int, stop: int) -> list[Branch]:
    """Runs of equal `visible_until` in one example, each with its place in the tree.

    10 10 | 7 7 | 6 | 7 | 10    ->    root, A, A.1, A.2, B: the parent is the nearest earlier run still visible.

    An only child is one run with its parent: for the mask they are one.
    """
    cuts = [start, *(i for i in range(start + 1, stop) if until_S[i] != until_S[i - 1]), stop]
    found: list[Branch] = []
    children: dict[int, int] = {}
    for first, last in itertools.pairwise(cuts):
        parent = next((p for p in reversed(range(len(found))) if until_S[found[p].start] > first), None)
        if parent is None:
            found.append(Branch("root", first, last, 0, None))
            continue
        number = children[parent] = children.get(parent, 0) + 1
        above = found[parent]
        name = letters(number) if above.parent is None else f"{above.name}.{number}"
        found.append(Branch(name, first, last, above.depth + 1, parent))
    return found


def letters(number: int) -> str:
    """1 -> "A", 26 -> "Z", 27 -> "AA"."""
    name = ""
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def views(row: dict[str, np.ndarray], tok: Tokenizer, crop_of: np.ndarray, start: int, stop: int) -> list[View]:
    """The frames and images of one example in the order of its tokens.

    " 0.5 " <im_start> 81 x <im_patch> <im_end>    a frame of that time
    <low_res_im_start> 196 x <im_patch> <im_end> <im_start> (W x ... <im_col>) x H    an image, its tiles
    """
    tokens = row["tokens"]
    opening = {tok.special(name) for name in OPENING}
    closing = {tok.special(name) for name in CLOSING}
    overview, column = tok.special("<low_res_im_start>"), tok.special("<im_col>")
    found: list[View] = []
    images, begin, before, grid = 0, None, start, None  # grid: where the tiles of the image just shown would begin
    for i in range(start, stop):
        if tokens[i] in opening and begin is None:
            begin = i
        elif tokens[i] in closing and begin is not None:
            crops = [c for c in dict.fromkeys(crop_of[begin:i].tolist()) if c >= 0]
            if begin == grid:
                found[-1] = _with_tiles(found[-1], crops, np.flatnonzero(tokens[begin:i] == column))
            elif tokens[begin] == overview:
                images += 1
                found += [View(c, images, f"image {images}") for c in crops]
            else:
                stamp = TIMESTAMP.search(tok.decode(tokens[before:begin]))
                key, name = (float(stamp[1]), f"{stamp[1]} s") if stamp else (None, f"frame {len(found) + 1}")
                found += [View(c, key, name) for c in crops]
            grid = i + 1 if tokens[begin] == overview and crops else None
            begin, before = None, i + 1
    return found


def _with_tiles(view: View, crops: list[int], columns: np.ndarray) -> View:
    """The image with its tiles. `columns`: where its grid's rows end, at <im_col>, counted from the grid's start."""
    if len(columns) == 0:
        raise ValueError(f"{view.caption}: its tiles have no <im_col>")
    # n views along an axis make 19 n + 8 patches, and two patches a token (data/views.py).
    rows, across = (max(1, (2 * n - 2 * MARGIN) // STEP) for n in (len(columns), int(columns[0]) - 1))
    if rows * across != len(crops):
        raise ValueError(f"{view.caption}: a grid of {rows} x {across} tiles, but tokens of {len(crops)} crops")
    step, border = STEP * PATCH, 2 * MARGIN * PATCH
    tiles = tuple(Tile(crop, n % across * step, n // across * step) for n, crop in enumerate(crops))
    return dataclasses.replace(view, tiles=tiles, size=(across * step + border, rows * step + border))


def subtitles(row: dict[str, np.ndarray], tok: Tokenizer, start: int, stop: int) -> list[Subtitle]:
    """What is said in the video of one example: the text after its last frame, up to the first message.

    "subtitle\\n0.0 - 2.5 Hello\\n"  ->  [Subtitle(0.0, 2.5, "Hello")]        other text is one Subtitle without times
    """
    tokens = row["tokens"][start:stop]
    frames = np.flatnonzero(np.isin(tokens, [tok.special(name) for name in CLOSING]))
    if len(frames) == 0:
        return []
    first = int(frames[-1]) + 1
    messages = np.flatnonzero(tokens[first:] == tok.special(CHAT))
    text = tok.decode(tokens[first : first + int(messages[0]) if len(messages) else None])
    if not text.startswith(SUBTITLES):
        return []
    text = text.removeprefix(SUBTITLES)
    lines = [SUBTITLE.fullmatch(line) for line in text.rstrip("\n").split("\n")]
    if None in lines:
        return [Subtitle(None, None, text)]
    return [Subtitle(float(line[1]), float(line[2]), line[3]) for line in lines]


def crops_by_token(row: dict[str, np.ndarray], vision_shards: int = 1) -> np.ndarray:
    """int[S]: the crop of the patches pooled into a token, the last of them; -1 for tokens that pool none.

    Patches are numbered within their vision shard: with 2 shards of 8 crops, patch 0 of the second is crop 4.
    """
    length, crops, pooled = len(row["tokens"]), len(row["crops"]), len(row["visual_slots"])
    if crops % vision_shards or pooled % vision_shards:
        raise ValueError(f"{crops} crops and {pooled} pooled tokens cannot be cut into {vision_shards} vision shards")
    crop_of = np.full(length, -1)
    used = np.flatnonzero(row["visual_slots"] < length)
    patches = row["pooling"][used].max(axis=1, initial=-1)
    shard = used * vision_shards // max(pooled, 1)
    crop_of[row["visual_slots"][used]] = np.where(
        patches < 0, -1, patches // PATCHES + shard * (crops // vision_shards)
    )
    return crop_of


def replies(row: dict[str, np.ndarray], tok: Tokenizer, parts: list[Branch]) -> list[Reply]:
    """The learned answers of one example, as the text of their targets."""
    found = []
    for number, part in enumerate(parts):
        learned = row["loss_weights"][part.start : part.stop] > 0
        targets = row["targets"][part.start : part.stop]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], learned, [0]])))
        for first, last in edges.reshape(-1, 2):
            ids = targets[first:last]
            found.append(Reply(number, tok.decode(ids[:-1] if ids[-1] == tok.eos_id else ids)))
    return found


def crop_picture(crop_PX: np.ndarray) -> np.ndarray:
    """uint8[729, 588] patches of one crop -> the picture, uint8[378, 378, 3]. A patch is (row, column, channel)."""
    return crop_PX.reshape(27, 27, 14, 14, 3).transpose(0, 2, 1, 3, 4).reshape(378, 378, 3)
