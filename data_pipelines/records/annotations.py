"""Annotations of a medium, as values. prompts/ turns each into a prompt and an answer.

    Message("video_point", question=None, answer=Points("black car", (Point(2.5, 0.19, 0.5),)), ...)
      ->  user       "Point to the black car."
          assistant  <points coords="2.5 1 188 500">black car</points>

Units: seconds since the start of the example's clip; x and y as fractions of the frame's width and height, y down.
records/read.py converts whatever units a record has to these.
"""

import dataclasses

from data_pipelines.text.points import Point
from data_pipelines.text.tracks import TrackFrame


@dataclasses.dataclass(frozen=True)
class Text:
    """An answer in words. Several people may have answered: the most frequent answer is used; ties are broken at
    random.

    `explanation`: reasoning steps that lead to the answer, None where there are none.
    """

    answers: tuple[str, ...]
    explanation: str | None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Multiple choice. `correct`: indices into `options`, mostly one. `labelled`: whether options have letters."""

    options: tuple[str, ...]
    correct: tuple[int, ...]
    labelled: bool


@dataclasses.dataclass(frozen=True)
class Points:
    """Everything that `label` names. A point's key is seconds of a video or the number of an image, from 1.

    `alt` is the tag's alternative text. `unanswerable`: why nothing can be pointed at or counted, "" where no reason is
    given; None for a question that can be answered.
    """

    label: str
    points: tuple[Point, ...]
    alt: str | None
    unanswerable: str | None


@dataclasses.dataclass(frozen=True)
class Tracks:
    """Positions of objects over time. `frames` hold what is visible; `fps` is the grid of annotated times, in 1/s."""

    label: str
    frames: tuple[TrackFrame, ...]
    fps: int


@dataclasses.dataclass(frozen=True)
class InlinePoints:
    """An answer in words that points: each POINT_MARK in `text` stands for the next of `points`."""

    text: str
    points: tuple[Points, ...]


POINT_MARK = "<|POINT|>"

Answer = Text | Choice | Points | Tracks | InlinePoints


@dataclasses.dataclass(frozen=True)
class Message:
    """A question, its answer, and its follow-ups (`then`), each in a branch of its own."""

    style: str  # a key of records/styles.py: STYLES
    user: str | None  # the prompt verbatim, without template or style prefix; None where `question` is framed
    question: str | None  # the annotated question, which templates may frame; None where only the style asks
    about: str | float | tuple[float, float] | None  # a named object, a time or a span (s) that the style asks about
    answer: Answer
    weight: float  # factor on the loss weight of its tokens, mostly 1
    then: tuple["Message | AnyOf", ...]


@dataclasses.dataclass(frozen=True)
class AnyOf:
    """One of several messages, drawn again each time its example is drawn: one transcript of four, one style of two."""

    choices: tuple[Message, ...]
