"""A packed row read back as people think of it: examples, branches, views (frames, images) and answers.

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
from molmo2_jax.text.tokenizer import Tokenizer

OPENING = ("<low_res_im_start>", "<im_start>", "<frame_start>")
CLOSING = ("<im_end>", "<frame_end>")
TIMESTAMP = re.compile(r"(\d+\.\d+)\s*$")


@dataclasses.dataclass(frozen=True)
class Branch:
    """Tokens [start, stop) of one run; `parent` is an index into the example's branches, None for its root."""

    name: str
    start: int
    stop: int
    depth: int
    parent: int | None


@dataclasses.dataclass(frozen=True)
class View:
    """One crop as the model sees it. `key` is what points name it by: seconds or an image's number; None for a tile."""

    crop: int
    key: float | int | None
    caption: str


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
    replies: list[Reply]


def read_row(row: dict[str, np.ndarray], tok: Tokenizer) -> list[ExampleView]:
    """The examples of one row, in order. ValueError when `visible_until` is none a packer writes."""
    found = []
    for start, stop in example_bounds(row["visible_until"]):
        parts = branches(row["visible_until"], start, stop)
        found.append(ExampleView(start, stop, parts, views(row, tok, start, stop), replies(row, tok, parts)))
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


def views(row: dict[str, np.ndarray], tok: Tokenizer, start: int, stop: int) -> list[View]:
    """The crops of one example in the order of its tokens, each once, with its timestamp or image number."""
    tokens = row["tokens"]
    opening = {tok.special(name) for name in OPENING}
    closing = {tok.special(name) for name in CLOSING}
    overview = tok.special("<low_res_im_start>")
    crop_of = crops_by_token(row)
    found: list[View] = []
    seen: set[int] = set()
    image, begin, before = 0, None, start
    for i in range(start, stop):
        if tokens[i] in opening and begin is None:
            begin = i
        elif tokens[i] in closing and begin is not None:
            crops = [c for c in dict.fromkeys(crop_of[begin:i].tolist()) if c >= 0 and c not in seen]
            seen.update(crops)
            stamp = TIMESTAMP.search(tok.decode(tokens[before:begin]))
            if stamp and tokens[begin] != overview:
                found += [View(c, float(stamp[1]), f"{stamp[1]} s") for c in crops]
            elif tokens[begin] == overview:
                image += 1
                found += [View(c, image, f"image {image}") for c in crops]
            else:
                found += [View(c, None, f"image {image}, tile {n}") for n, c in enumerate(crops, 1)]
            begin, before = None, i + 1
    return found


def crops_by_token(row: dict[str, np.ndarray]) -> np.ndarray:
    """int[S]: the crop of the patches pooled into a token, the last of them; -1 for tokens that pool none."""
    length = len(row["tokens"])
    crop_of = np.full(length, -1)
    used = row["visual_slots"] < length
    patches = row["pooling"][used].max(axis=1, initial=-1)
    crop_of[row["visual_slots"][used]] = np.where(patches < 0, -1, patches // PATCHES)
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
