"""A packed row read back from its arrays: examples, branches, pictures, subtitles and supervised answers.

Nothing is read but the arrays of packing/schema.py, so that the page shows what the model trains on, not what the code
that packed the row intended.

    token          1 v v | a b x y | c d w | 1 e z | -
    visible_until  A A A   7 7 7 7   A A A   D D D   0
    examples       0 ..................... | 1 ....        one ends where the next begins
    branches       root    A         B       root          runs of equal visible_until, named by their path in the tree
    answers                  x y       w       z           runs of supervised targets, without their EOS

Every function takes one row, without the batch dimension: {name: array} with the shapes and dtypes of FIELDS.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.media.crops import CROP_SIZE, MARGIN, PATCH, PATCHES, PATCHES_PER_SIDE, STEP
from data_pipelines.media.pooling import IMAGE_POOL
from data_pipelines.text.tokenizer import Tokenizer

OPENING = ("<low_res_im_start>", "<im_start>", "<frame_start>")
CLOSING = ("<im_end>", "<frame_end>")
CHAT = "<|im_start|>"  # opens a message, so it ends the text of the root
TIMESTAMP = re.compile(r"(\d+\.\d+)\s*$")
SUBTITLES = "subtitle\n"  # between the last frame and the subtitles
SUBTITLE = re.compile(r"(\d+\.\d) - (\d+\.\d) (.*)")


@dataclasses.dataclass(frozen=True)
class Branch:
    """Tokens [start, stop) of the row. `parent` is an index into the example's branches, None for the root."""

    name: str
    start: int
    stop: int
    depth: int
    parent: int | None


@dataclasses.dataclass(frozen=True)
class DetailCrop:
    """A high-resolution crop: its index in the row, and its top left corner in pixels of the resized image."""

    crop: int
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Picture:
    """A video frame or an image. `crop` is the index of the crop that shows all of it, squashed to a square.

    `key` is how points refer to it: seconds (float), or the number of an image, from 1 (int). It is None for a frame
    without a timestamp. An image has `detail_crops`, parts of the image resized to `size`, (width, height) in pixels.
    """

    crop: int
    key: float | int | None
    caption: str
    detail_crops: tuple[DetailCrop, ...] = ()
    size: tuple[int, int] = (CROP_SIZE, CROP_SIZE)


@dataclasses.dataclass(frozen=True)
class Subtitle:
    """A line of speech from `start` to `stop` seconds. Both are None for a text in another format."""

    start: float | None
    stop: float | None
    text: str


@dataclasses.dataclass(frozen=True)
class Reply:
    """The text of a supervised answer, and the index of its branch in the example."""

    branch: int
    text: str


@dataclasses.dataclass(frozen=True)
class RowExample:
    """Tokens [start, stop) of the row, and what they hold."""

    start: int
    stop: int
    branches: list[Branch]
    pictures: list[Picture]
    subtitles: list[Subtitle]
    replies: list[Reply]


def read_row(row: Mapping[str, np.ndarray], tok: Tokenizer, vision_shards: int = 1) -> list[RowExample]:
    """The examples of a row, in order.

    Args:
      row: the arrays of one row.
      vision_shards: the number of equal parts of its crops and pooled tokens.

    Raises:
      ValueError: no packer writes such a `visible_until`, or an image's grid of tokens does not match its crops.
    """
    crop_of_S = crops_by_token(row, vision_shards)
    examples = []
    for start, stop in example_bounds(row["visible_until"]):
        parts = branches(row["visible_until"], start, stop)
        shown = pictures(row, tok, crop_of_S, start, stop)
        lines = subtitles(row, tok, start, stop)
        examples.append(RowExample(start, stop, parts, shown, lines, replies(row, tok, parts)))
    return examples


def example_bounds(until_S: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of each example in `visible_until`, int32[S]: its first token is visible up to its end.

    [4, 2, 4, 4, 6, 6, 0]  ->  [(0, 4), (4, 6)]

    Raises ValueError where that does not hold.
    """
    bounds, start = [], 0
    while start < len(until_S) and until_S[start] > 0:
        stop = int(until_S[start])
        if not start < stop <= len(until_S) or (until_S[start:stop] > stop).any():
            raise ValueError(f"token {start} begins an example, but its visible_until is {stop}")
        bounds.append((start, stop))
        start = stop
    return bounds


def branches(until_S: np.ndarray, start: int, stop: int) -> list[Branch]:
    """Runs of equal `visible_until` (int32[S]) in the example [start, stop), each named by its path in the tree.

    10 10 | 7 7 | 6 | 7 | 10    ->    root, A, A.1, A.2, B: the parent is the nearest earlier run that is still visible

    An only child is one run with its parent: the mask does not tell them apart.
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


def pictures(
    row: Mapping[str, np.ndarray], tok: Tokenizer, crop_of_S: np.ndarray, start: int, stop: int
) -> list[Picture]:
    """The video frames and images of the example [start, stop), in the order of its tokens.

    " 0.5 " <im_start> 81 x <im_patch> <im_end>    a frame with its timestamp
    <low_res_im_start> 196 x <im_patch> <im_end> <im_start> (W x <im_patch> <im_col>) x H <im_end>    an image

    `crop_of_S`: see `crops_by_token`. Raises ValueError where an image's grid of tokens does not match its crops.
    """
    tokens = row["tokens"]
    opening = {tok.special(name) for name in OPENING}
    closing = {tok.special(name) for name in CLOSING}
    overview, column = tok.special("<low_res_im_start>"), tok.special("<im_col>")
    found: list[Picture] = []
    # begin: where the open picture began; before: where the text before it began; grid: where the grid of tokens of
    # the last image's detail crops would begin, directly after its overview.
    images, begin, before, grid = 0, None, start, None
    for i in range(start, stop):
        if tokens[i] in opening and begin is None:
            begin = i
        elif tokens[i] in closing and begin is not None:
            crops = [c for c in dict.fromkeys(crop_of_S[begin:i].tolist()) if c >= 0]
            if begin == grid:
                found[-1] = _with_detail_crops(found[-1], crops, np.flatnonzero(tokens[begin:i] == column))
            elif tokens[begin] == overview:
                images += 1
                found += [Picture(c, images, f"image {images}") for c in crops]
            else:
                stamp = TIMESTAMP.search(tok.decode(tokens[before:begin]))
                key, caption = (float(stamp[1]), f"{stamp[1]} s") if stamp else (None, f"frame {len(found) + 1}")
                found += [Picture(c, key, caption) for c in crops]
            grid = i + 1 if tokens[begin] == overview and crops else None
            begin, before = None, i + 1
    return found


def _with_detail_crops(image: Picture, crops: Sequence[int], columns: np.ndarray) -> Picture:
    """The image with its detail crops. `columns`, int64[H]: indices of <im_col>, relative to the start of the grid."""
    if len(columns) == 0:
        raise ValueError(f"{image.caption}: its detail crops have no <im_col>")
    # n crops along an axis have STEP n + 2 MARGIN patches, which a token pools IMAGE_POOL by IMAGE_POOL.
    tokens_along = (len(columns), int(columns[0]) - 1)
    rows, across = (max(1, (IMAGE_POOL * n - 2 * MARGIN) // STEP) for n in tokens_along)
    if rows * across != len(crops):
        raise ValueError(f"{image.caption}: a grid of {rows} x {across} crops, but its tokens pool {len(crops)} crops")
    step, border = STEP * PATCH, 2 * MARGIN * PATCH
    detail = tuple(DetailCrop(crop, n % across * step, n // across * step) for n, crop in enumerate(crops))
    return dataclasses.replace(image, detail_crops=detail, size=(across * step + border, rows * step + border))


def subtitles(row: Mapping[str, np.ndarray], tok: Tokenizer, start: int, stop: int) -> list[Subtitle]:
    """The subtitles of the example [start, stop): the text between its last frame and its first message.

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


def crops_by_token(row: Mapping[str, np.ndarray], vision_shards: int = 1) -> np.ndarray:
    """int64[S]: the crop whose patches are pooled into each token, the last if there are several; -1 for other tokens.

    `pooling` numbers patches within a vision shard: with 8 crops in 2 shards, patch 0 of the second is in crop 4.

    Raises ValueError where `vision_shards` does not divide the row's crops and pooled tokens.
    """
    length, crops, pooled = len(row["tokens"]), len(row["crops"]), len(row["visual_slots"])
    if crops % vision_shards or pooled % vision_shards:
        raise ValueError(f"{vision_shards} vision shards do not divide {crops} crops and {pooled} pooled tokens")
    crop_of_S = np.full(length, -1)
    used = np.flatnonzero(row["visual_slots"] < length)
    patches = row["pooling"][used].max(axis=1, initial=-1)
    shard = used * vision_shards // max(pooled, 1)
    crop_of_S[row["visual_slots"][used]] = np.where(
        patches < 0, -1, patches // PATCHES + shard * (crops // vision_shards)
    )
    return crop_of_S


def replies(row: Mapping[str, np.ndarray], tok: Tokenizer, parts: Sequence[Branch]) -> list[Reply]:
    """The text of every run of supervised targets in the branches `parts` of one example, without its EOS."""
    found = []
    for number, part in enumerate(parts):
        supervised = row["loss_weights"][part.start : part.stop] > 0
        targets = row["targets"][part.start : part.stop]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], supervised, [0]])))
        for first, last in edges.reshape(-1, 2):
            ids = targets[first:last]
            found.append(Reply(number, tok.decode(ids[:-1] if ids[-1] == tok.eos_id else ids)))
    return found


def unpatchify(crop_PX: np.ndarray) -> np.ndarray:
    """uint8[729, 588], the patches of one crop -> uint8[378, 378, 3], its pixels: the inverse of `crops.patchify`."""
    patches = crop_PX.reshape(PATCHES_PER_SIDE, PATCHES_PER_SIDE, PATCH, PATCH, 3)
    return patches.transpose(0, 2, 1, 3, 4).reshape(CROP_SIZE, CROP_SIZE, 3)
