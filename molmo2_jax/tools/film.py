"""What an example shows, for the page's player: views, the points and tracks of its answers, subtitles.

    views   0.0 s    0.5 s    1.0 s       or       image 1 (overview and tiles)    image 2
    tags    A cyclist   1 . . 1                    a point is [number, view, x, y, key]
    said    "Hello" 0.0 - 0.8

x and y are fractions of the view. A point belongs to the view that its seconds or its image number name; where no view
has them, its view is -1 and the page lists it.
"""

import difflib
import re
from collections.abc import Sequence

from molmo2_jax.text import points
from molmo2_jax.tools.compare import Answer
from molmo2_jax.tools.row_view import ExampleView, View

SAME_TIME = 0.05 + 1e-6  # seconds: points are written in tenths, timestamps of some modes in hundredths


def film(example: ExampleView) -> dict:
    """The views, tags and subtitles of one example. `timed`: whether every view has its seconds."""
    return {
        "timed": all(isinstance(view.key, float) for view in example.views),
        "views": [
            {
                "crop": view.crop,
                "key": view.key,
                "caption": view.caption,
                "size": view.size,
                "tiles": [[tile.crop, tile.x, tile.y] for tile in view.tiles],
            }
            for view in example.views
        ],
        "tags": [{"branch": r.branch, **tag} for r in example.replies for tag in tags(r.text, example.views)],
        "subtitles": [[said.start, said.stop, said.text] for said in example.subtitles],
    }


def tags(text: str, views: Sequence[View]) -> list[dict]:
    """Every tag of an answer: its kind ("points", "tracks"), its label and its points as [number, view, x, y, key]."""
    return [
        {
            "kind": tag.kind,
            "label": tag.label if tag.alt is None else f"{tag.label} ({tag.alt})",
            "points": [[p.index, view_of(p.key, views), p.x, p.y, p.key] for p in tag.points],
        }
        for tag in points.parse_points(text)
    ]


def view_of(key: float | int, views: Sequence[View]) -> int:
    """The place of the view that seconds (float) or an image number (int) name, the nearest one; -1 if none does."""
    named = [(abs(view.key - key), n) for n, view in enumerate(views) if type(view.key) is type(key)]
    distance, number = min(named, default=(1.0, -1))
    return number if distance <= SAME_TIME else -1


def answer_card(answer: Answer, place: tuple[int, int] | None, views: Sequence[View]) -> dict:
    """A prompt with both answers, as parts [text, whether the other lacks it], and the tags of each.

    `place`: (row, example) whose views the points are drawn on; None if no example asks this prompt.
    """
    annotated, generated = differences(answer.annotated, answer.generated)
    return {
        "prompt": answer.prompt,
        "place": place,
        "equal": answer.annotated == answer.generated,
        "annotated": {"parts": annotated, "tags": tags(answer.annotated, views)},
        "generated": {"parts": generated, "tags": tags(answer.generated, views)},
    }


def differences(left: str, right: str) -> tuple[list[list], list[list]]:
    """Both texts in parts, [text, True] for words and numbers that the other does not have, [text, False] else."""
    out: tuple[list[list], list[list]] = ([], [])
    words = [re.findall(r"\w+|\W", text) for text in (left, right)]
    for kind, a, b, c, d in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, text in zip(out, ("".join(words[0][a:b]), "".join(words[1][c:d])), strict=True):
            if text:
                side.append([text, kind != "equal"])
    return out
