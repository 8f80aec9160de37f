"""The tokens of a row as HTML spans: colour by kind, shade by loss weight, every number about them in a tooltip.

    <|im_start|> … 0.0 <im_start> 81 x <im_patch> <im_end> … Point to the car. … <points coords= …
    control        text visual …                            text                 answer

Tokens of an answer are those that the token before them is trained to say. The shade belongs to the token whose loss it
is: the line end before an answer learns the answer's first token, and the last target of a branch (its EOS) is drawn as
a ghost after it where no token of the branch follows.
"""

from collections.abc import Sequence
from html import escape

import numpy as np

from molmo2_jax.data import layout
from molmo2_jax.text.tokenizer import Tokenizer
from molmo2_jax.tools.row_view import Branch, crops_by_token

PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) != "\n"} | {127: 0x2421}


def show(text: str) -> str:
    """Escaped text with control characters as their pictures: "a\\x00<" -> "a␀&lt;". Line ends stay."""
    return escape(text.translate(PICTURES))


def token_kinds(row: dict[str, np.ndarray], pieces: Sequence[str], tok: Tokenizer) -> list[str]:
    """Each token's kind: "visual", "answer" (a learned target of the token before it), "control" or "text"."""
    ids, until, weights = row["tokens"], row["visible_until"], row["loss_weights"]
    visual = {tok.special(name) for name in layout.VISUAL}
    control = {token for token, piece in set(zip(ids.tolist(), pieces, strict=True)) if _is_control(token, piece, tok)}
    kinds = []
    for i, token in enumerate(ids.tolist()):
        if row["image_group"][i] != 0 or token in visual:
            kinds.append("visual")
        elif i > 0 and weights[i - 1] > 0 and until[i] == until[i - 1] and row["targets"][i - 1] == token:
            kinds.append("answer")
        else:
            kinds.append("control" if token in control else "text")
    return kinds


def _is_control(token: int, piece: str, tok: Tokenizer) -> bool:
    try:
        return tok.special(piece) == token
    except ValueError:
        return False


class TokenSpans:
    """Writes branches of one row as spans."""

    def __init__(self, row: dict[str, np.ndarray], tok: Tokenizer):
        self._row, self._tok = row, tok
        self._pieces = tok.pieces(row["tokens"].tolist())
        self._kinds = token_kinds(row, self._pieces, tok)
        self._patch = tok.special("<im_patch>")
        self._crop_of = crops_by_token(row)
        self._heaviest = float(row["loss_weights"].max(initial=0)) or 1.0

    def branch(self, part: Branch) -> str:
        """The spans of a branch; runs of <im_patch> of one group are one span."""
        row, spans, i = self._row, [], part.start
        while i < part.stop:
            j = i + 1
            if row["tokens"][i] == self._patch:
                while j < part.stop and self._continues(i, j):
                    j += 1
            spans.append(self._span(i, j))
            i = j
        if row["loss_weights"][part.stop - 1] > 0:
            target = show(self._piece(row["targets"][part.stop - 1]))
            title = "the last target: learned, but not itself a token of this branch"
            spans.append(f'<span class="ghost" title="{title}">{target}</span>')
        return "".join(spans)

    def _continues(self, i: int, j: int) -> bool:
        same_group = self._row["image_group"][j] == self._row["image_group"][i]
        return self._row["tokens"][j] == self._patch and same_group

    def _span(self, i: int, j: int) -> str:
        """Tokens [i, j); j > i + 1 for a folded run."""
        many, weight = j - i > 1, float(self._row["loss_weights"][i])
        text = show(self._pieces[i])
        text = f"{j - i} × {text}" if many else text.replace("\n", '<i class="eol">↵</i>\n')
        classes = " ".join(["t", self._kinds[i], *["learns"] * (weight > 0), *["fold"] * many])
        style = f' style="--w:{weight / self._heaviest:.3f}"' if weight > 0 else ""
        return f'<span class="{classes}"{style} data-i="{i}" data-j="{j}" title="{self._tip(i, j)}">{text}</span>'

    def _tip(self, i: int, j: int) -> str:
        row, many = self._row, j - i > 1
        numbers = [
            f"index {i}" + f"–{j - 1}" * many,
            f"id {row['tokens'][i]}",
            f"position {row['positions'][i]}" + f"–{row['positions'][j - 1]}" * many,
            f"visible_until {row['visible_until'][i]}",
            f"image_group {row['image_group'][i]}",
            f"weight {row['loss_weights'][i]:.4g}",
        ]
        if self._crop_of[i] >= 0:
            numbers.append(f"crop {self._crop_of[i]}")
        if not many:
            numbers.append(f"target {row['targets'][i]} {self._piece(row['targets'][i])!r}")
        return "&#10;".join(show(number) for number in numbers)

    def _piece(self, token: int) -> str:
        return self._tok.pieces([int(token)])[0]
