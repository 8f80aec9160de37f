"""Views of a row as HTML: frames in a strip, the points of answers on them, annotated beside generated answers.

A point (x, y) is a fraction of the view, so that it stands at (378 x, 378 y) of the view's SVG whatever its size on the
screen. Every picture is in the page once, with an id of its row and crop; other places show it by `<use href="#r0c3">`.
"""

import base64
import difflib
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from molmo2_jax.text import points
from molmo2_jax.tools.compare import Answer
from molmo2_jax.tools.row_view import ExampleView, View, crop_picture

SIDE = 378  # pixels of a view, units of its SVG
SAME_TIME = 0.05  # seconds: timestamps are written with one decimal


class Mark(NamedTuple):
    """A point to draw and the label beside its number."""

    point: points.IndexedPoint
    label: str


def marks_in(text: str) -> list[Mark]:
    """The points of every tag in an answer."""
    return [Mark(point, tag.label) for tag in points.parse_points(text) for point in tag.points]


def picture_id(row: int, crop: int) -> str:
    """The id of a view's picture in the page."""
    return f"r{row}c{crop}"


def data_uri(picture: np.ndarray) -> str:
    """uint8[h, w, 3] as a JPEG in a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def film(row: int, crops: np.ndarray, example: ExampleView, hues: Sequence[int]) -> str:
    """The views of one example with the points of its answers, in the colours of their branches (`hues`, degrees)."""
    if not example.views:
        return ""
    marks = [(mark, hues[reply.branch]) for reply in example.replies for mark in marks_in(reply.text)]
    figures = [_figure(row, crops, view, [m for m in marks if on_view(m[0], view)]) for view in example.views]
    lost = [mark for mark, _ in marks if not any(on_view(mark, view) for view in example.views)]
    note = f'<p class="lost">{len(lost)} points are on none of these views: {_listed(lost)}</p>' if lost else ""
    return (
        f'<div class="film"><div class="stage"><svg viewBox="0 0 {SIDE} {SIDE}"></svg><p></p></div>'
        f'<div class="reel"><div class="strip">{"".join(figures)}</div>'
        f'<input type="range" min="0" max="{len(figures) - 1}" value="0" aria-label="view">{note}</div></div>'
    )


def on_view(mark: Mark, view: View) -> bool:
    """Whether the point names this view, by its seconds (a float) or its image number (an int)."""
    return type(mark.point.key) is type(view.key) and abs(mark.point.key - view.key) < SAME_TIME


def _figure(row: int, crops: np.ndarray, view: View, marks: list[tuple[Mark, int]]) -> str:
    drawn = "".join(_ring(mark, f"hsl({hue} 90% 60%)") for mark, hue in marks)
    many = "" if len(marks) == 1 else "s"
    caption = f"<span>{len(marks)} point{many}: {_listed(mark for mark, _ in marks)}</span>" if marks else ""
    return (
        f'<figure data-crop="{view.crop}"><svg viewBox="0 0 {SIDE} {SIDE}">'
        f'<image id="{picture_id(row, view.crop)}" width="{SIDE}" height="{SIDE}" '
        f'href="{data_uri(crop_picture(crops[view.crop]))}"/>{drawn}</svg>'
        f"<figcaption><b>{escape(view.caption)}</b> <i>crop {view.crop}</i>{caption}</figcaption></figure>"
    )


def _listed(marks: Iterable[Mark]) -> str:
    return escape(", ".join(dict.fromkeys(mark.label for mark in marks)))


def _ring(mark: Mark, colour: str) -> str:
    """A ring around the point, its number and its label to the side that has room."""
    x, y = mark.point.x * SIDE, mark.point.y * SIDE
    side, anchor = (-13, "end") if mark.point.x > 0.6 else (13, "start")
    below = 18 if mark.point.y < 0.1 else -6
    return (
        f'<g class="point" style="--c:{colour}"><circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="9"/>'
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="1.8"/>'
        f'<text x="{x + side:.1f}" y="{y + below:.1f}" text-anchor="{anchor}">{mark.point.index}'
        f'<tspan class="label"> {escape(mark.label)}</tspan></text></g>'
    )


def _cross(mark: Mark) -> str:
    x, y = mark.point.x * SIDE, mark.point.y * SIDE
    arms = f"M{x - 7:.1f} {y - 7:.1f}l14 14M{x - 7:.1f} {y + 7:.1f}l14 -14"
    return f'<path class="cross" d="{arms}"><title>generated {mark.point.index} {escape(mark.label)}</title></path>'


def answer_card(answer: Answer, row: int, example: ExampleView | None) -> str:
    """A prompt with both answers side by side, and both sets of points on the views of `example` that have any."""
    annotated, generated = marks_in(answer.annotated), marks_in(answer.generated)
    figures = []
    for view in example.views if example else ():
        ours = [mark for mark in annotated if on_view(mark, view)]
        theirs = [mark for mark in generated if on_view(mark, view)]
        if ours or theirs:
            drawn = "".join(_ring(mark, "var(--annotated)") for mark in ours) + "".join(map(_cross, theirs))
            figures.append(
                f'<figure><svg viewBox="0 0 {SIDE} {SIDE}"><use href="#{picture_id(row, view.crop)}"/>{drawn}</svg>'
                f"<figcaption><b>{escape(view.caption)}</b></figcaption></figure>"
            )
    left, right = _differences(answer.annotated, answer.generated)
    equal = answer.annotated == answer.generated
    return (
        f'<article class="answer {"equal" if equal else "unequal"}"><h3>{escape(answer.prompt)}'
        f'<span class="verdict">{"equal" if equal else "different"}</span></h3>'
        f'<div class="pair"><div class="annotated"><h4>annotated</h4><p>{left}</p></div>'
        f'<div class="generated"><h4>generated</h4><p>{right}</p></div></div>'
        f'<div class="shots">{"".join(figures)}</div></article>'
    )


def _differences(left: str, right: str) -> tuple[str, str]:
    """Both texts escaped, with <mark> around the words and numbers that the other does not have."""
    out: tuple[list[str], list[str]] = ([], [])
    words = [re.findall(r"\w+|\W", text) for text in (left, right)]
    for kind, a, b, c, d in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, text in zip(out, ("".join(words[0][a:b]), "".join(words[1][c:d])), strict=True):
            if text:
                side.append(escape(text) if kind == "equal" else f"<mark>{escape(text)}</mark>")
    return "".join(out[0]), "".join(out[1])
