"""The tokens of a row as short lists for the page. What equals the entry before it, or follows from it, is left out.

    <|im_start|> … 0.0 <im_start> 81 x <im_patch> <im_end> … Point to the car. … <points coords= …
    control        text visual …                            text                 answer

An answer token is the supervised target of the token before it. A weight belongs to the token whose target it weights:
the line end before an answer has the weight of the answer's first token.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_pipelines.sequence import visual_layout
from data_pipelines.text.tokenizer import Tokenizer

CONTROL_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) != "\n"} | {127: 0x2421}  # Unicode's name
KINDS = {"text": "t", "control": "c", "visual": "v", "answer": "a"}


def vocabulary(ids: Iterable[int], tok: Tokenizer) -> dict[int, str]:
    """The text shown for each of `ids`. Control characters become visible ("a\\x00" -> "a␀"), except line ends."""
    ids = sorted({int(i) for i in ids})
    return {i: piece.translate(CONTROL_PICTURES) for i, piece in zip(ids, tok.pieces(ids), strict=True)}


def token_kinds(row: Mapping[str, np.ndarray], tok: Tokenizer) -> list[str]:
    """The kind of each of the S tokens of a row: "visual", "answer", "control" or "text"."""
    ids, until, weights = row["tokens"], row["visible_until"], row["loss_weights"]
    visual = {tok.special(name) for name in visual_layout.VISUAL}
    distinct = set(ids.tolist())
    control = {i for i, piece in zip(distinct, tok.pieces(distinct), strict=True) if _is_control(i, piece, tok)}
    kinds = []
    for i, token in enumerate(ids.tolist()):
        if row["image_group"][i] != 0 or token in visual:
            kinds.append("visual")
        elif i > 0 and weights[i - 1] > 0 and until[i] == until[i - 1] and row["targets"][i - 1] == token:
            kinds.append("answer")
        else:
            kinds.append("control" if token in control else "text")
    return kinds


def token_stream(row: Mapping[str, np.ndarray], tok: Tokenizer, crop_of_S: np.ndarray) -> dict:
    """The n tokens of a row before its padding. `crop_of_S`, int64[S]: see `row_reader.crops_by_token`.

    ids      [id, ...] of n tokens
    kinds    a letter of KINDS for each of them
    runs     [start, position, visible_until, image_group]: up to the next run, positions count on, the rest is equal
    weights  [start, weight]: equal up to the next one
    targets  [index, id] of the targets that are not the next token
    folds    [start, stop, first crop, last crop] of every run of <im_patch>; crops are -1 where nothing is pooled
    """
    used = int(np.count_nonzero(row["visible_until"]))
    ids, targets, weights = (row[name][:used] for name in ("tokens", "targets", "loss_weights"))
    next_ids = np.append(ids[1:], -1)
    return {
        "ids": ids.tolist(),
        "kinds": "".join(KINDS[kind] for kind in token_kinds(row, tok)[:used]),
        "runs": runs(row),
        "weights": [[int(i), float(f"{weights[i]:.4g}")] for i in _run_starts([weights])],
        "targets": [[int(i), int(targets[i])] for i in np.flatnonzero(targets != next_ids)],
        "folds": _folds(row, used, tok.special("<im_patch>"), crop_of_S),
    }


def runs(row: Mapping[str, np.ndarray]) -> list[list[int]]:
    """[start, position, visible_until, image_group] of every run of the S tokens: what mask and RoPE are made from."""
    until, group, position = (row[name] for name in ("visible_until", "image_group", "positions"))
    starts = _run_starts([until, group, position - np.arange(len(position))], padding_S=until == 0)
    return [[int(i), int(position[i]), int(until[i]), int(group[i])] for i in starts]


def _run_starts(columns: Sequence[np.ndarray], padding_S: np.ndarray | None = None) -> np.ndarray:
    """Indices where any of `columns` ([S] each) differs from its previous value. Padding (bool[S]) is one run."""
    if len(columns[0]) == 0:
        return np.zeros(0, np.int64)
    changes = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    if padding_S is not None:
        changes &= ~(padding_S[1:] & padding_S[:-1])
    return np.flatnonzero(np.concatenate([[True], changes]))


def _folds(row: Mapping[str, np.ndarray], used: int, patch: int, crop_of_S: np.ndarray) -> list[list[int]]:
    is_patch, group = row["tokens"][:used] == patch, row["image_group"][:used]
    edges = [*_run_starts([is_patch, np.where(is_patch, group, 0)]).tolist(), used]
    folds = []
    for start, stop in itertools.pairwise(edges):
        if is_patch[start]:
            crops = crop_of_S[start:stop]
            folds.append([start, stop, int(crops.min()), int(crops.max())])
    return folds


def _is_control(token: int, piece: str, tok: Tokenizer) -> bool:
    try:
        return tok.special(piece) == token
    except ValueError:
        return False
