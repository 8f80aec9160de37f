"""Annotations: what people said about a medium, as values. How they become a prompt and an answer is data/prompts/.

    Message("video_point", question=None, answer=Points("black car", (Point(2.5, 0.19, 0.5),)), ...)
      ->  user       "Point to the black car."
          assistant  <points coords="2.5 1 188 500">black car</points>

Units: seconds since the start of the example's clip; x and y as fractions of the frame's width and height, y down.
Whatever units a record came in, data/record.py has turned them into these.
"""

import dataclasses

from molmo2_jax.text.points import Point
from molmo2_jax.text.tracks import TrackFrame


@dataclasses.dataclass(frozen=True)
class Text:
    """An answer in words. Several people may have answered: the most frequent answer counts, ties are drawn.

    `explanation`: reasoning steps that lead to the answer, None where there are none.
    """

    answers: tuple[str, ...]
    explanation: str | None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Multiple choice. `correct`: places in `options`, mostly one. `labelled`: False where options have no letters."""

    options: tuple[str, ...]
    correct: tuple[int, ...]
    labelled: bool


@dataclasses.dataclass(frozen=True)
class Points:
    """Everything that `label` names. A point's key is seconds of a video or the number of an image, from 1.

    `alt` is the tag's alternative text; `unanswerable` says why nothing can be pointed at or counted, None where it can
    ("" where no reason is given).
    """

    label: str
    points: tuple[Point, ...]
    alt: str | None
    unanswerable: str | None


@dataclasses.dataclass(frozen=True)
class Tracks:
    """Where objects are over time. `frames` hold what is visible; `fps` is the grid of annotated times, in 1/s."""

    label: str
    frames: tuple[TrackFrame, ...]
    fps: int


@dataclasses.dataclass(frozen=True)
class InlinePoints:
    """An answer in words with places: each POINT_MARK in `text` stands for the next of `points`."""

    text: str
    points: tuple[Points, ...]


POINT_MARK = "<|POINT|>"

Answer = Text | Choice | Points | Tracks | InlinePoints


@dataclasses.dataclass(frozen=True)
class Message:
    """A question, its answer, and what may follow it, each in a branch of its own."""

    style: str  # a key of data/styles.py: STYLES
    user: str | None  # the user's words exactly: neither template nor style prefix; None where `question` is framed
    question: str | None  # the annotated question, which templates may frame; None where only the style asks
    about: str | float | tuple[float, float] | None  # a named object, a time or a span (s) that the style asks about
    answer: Answer
    weight: float  # factor on the weight of its tokens, 1 for most
    then: tuple["Message | AnyOf", ...]


@dataclasses.dataclass(frozen=True)
class AnyOf:
    """One of several messages, drawn anew every time its example is: one transcript of four, one style of two."""

    choices: tuple[Message, ...]
