"""The tokens of a row as short lists for the page: what is equal to its neighbour, or follows from it, is left out.

    <|im_start|> … 0.0 <im_start> 81 x <im_patch> <im_end> … Point to the car. … <points coords= …
    control        text visual …                            text                 answer

Tokens of an answer are those that the token before them is trained to say. A weight belongs to the token whose loss it
is: the line end before an answer learns the answer's first token.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from molmo2_jax.data import layout
from molmo2_jax.text.tokenizer import Tokenizer

PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) != "\n"} | {127: 0x2421}
KINDS = {"text": "t", "control": "c", "visual": "v", "answer": "a"}


def vocabulary(ids: Iterable[int], tok: Tokenizer) -> dict[int, str]:
    """What the page shows for each of `ids`; control characters as their pictures: "a\\x00" -> "a␀". Line ends stay."""
    ids = sorted({int(i) for i in ids})
    return {i: piece.translate(PICTURES) for i, piece in zip(ids, tok.pieces(ids), strict=True)}


def token_kinds(row: dict[str, np.ndarray], tok: Tokenizer) -> list[str]:
    """Each token's kind: "visual", "answer" (a learned target of the token before it), "control" or "text"."""
    ids, until, weights = row["tokens"], row["visible_until"], row["loss_weights"]
    visual = {tok.special(name) for name in layout.VISUAL}
    names = set(ids.tolist())
    control = {i for i, piece in zip(names, tok.pieces(names), strict=True) if _is_control(i, piece, tok)}
    kinds = []
    for i, token in enumerate(ids.tolist()):
        if row["image_group"][i] != 0 or token in visual:
            kinds.append("visual")
        elif i > 0 and weights[i - 1] > 0 and until[i] == until[i - 1] and row["targets"][i - 1] == token:
            kinds.append("answer")
        else:
            kinds.append("control" if token in control else "text")
    return kinds


def token_stream(row: dict[str, np.ndarray], tok: Tokenizer, crop_of: np.ndarray) -> dict:
    """The row's tokens up to its padding, of which there are n. `crop_of`: see `row_view.crops_by_token`.

    ids      [id, ...] of n tokens
    kinds    a letter of KINDS for each of them
    runs     [start, position, visible_until, image_group]: to the next run, positions count on and the rest is equal
    weights  [start, weight]: equal up to the next one
    targets  [index, id] of the targets that are not the token after them
    folds    [start, stop, first crop, last crop] of every run of <im_patch>; crops are -1 where nothing is pooled
    """
    used = int(np.count_nonzero(row["visible_until"]))
    ids, targets, weights = (row[name][:used] for name in ("tokens", "targets", "loss_weights"))
    follower = np.append(ids[1:], -1)
    return {
        "ids": ids.tolist(),
        "kinds": "".join(KINDS[kind] for kind in token_kinds(row, tok)[:used]),
        "runs": runs(row),
        "weights": [[int(i), float(f"{weights[i]:.4g}")] for i in _starts([weights])],
        "targets": [[int(i), int(targets[i])] for i in np.flatnonzero(targets != follower)],
        "folds": _folds(row, used, tok.special("<im_patch>"), crop_of),
    }


def runs(row: dict[str, np.ndarray]) -> list[list[int]]:
    """[start, position, visible_until, image_group] of every run of the whole row: who sees whom, and RoPE."""
    until, group, position = (row[name] for name in ("visible_until", "image_group", "positions"))
    starts = _starts([until, group, position - np.arange(len(position))], apart=until == 0)
    return [[int(i), int(position[i]), int(until[i]), int(group[i])] for i in starts]


def _starts(columns: Sequence[np.ndarray], apart: np.ndarray | None = None) -> np.ndarray:
    """Where any of `columns` differs from the value before it; places that are both `apart` (padding) do not count."""
    if len(columns[0]) == 0:
        return np.zeros(0, np.int64)
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    if apart is not None:
        changes &= ~(apart[1:] & apart[:-1])
    return np.flatnonzero(np.concatenate([[True], changes]))


def _folds(row: dict[str, np.ndarray], used: int, patch: int, crop_of: np.ndarray) -> list[list[int]]:
    is_patch, group = row["tokens"][:used] == patch, row["image_group"][:used]
    edges = [*_starts([is_patch, np.where(is_patch, group, 0)]).tolist(), used]
    folds = []
    for start, stop in itertools.pairwise(edges):
        if is_patch[start]:
            crops = crop_of[start:stop]
            folds.append([start, stop, int(crops.min()), int(crops.max())])
    return folds


def _is_control(token: int, piece: str, tok: Tokenizer) -> bool:
    try:
        return tok.special(piece) == token
    except ValueError:
        return False
