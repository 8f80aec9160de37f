"""From an annotated message to the user's text and the answer.

    Message("video_point", question=None, answer=Points("cat", (Point(2.5, 0.5, 0.5),), ...))
      ->  TurnText("Point to cat.", '<points coords="2.5 1 500 500">cat</points>')

The wording is drawn again each time: the template, the layout, the images, the queried time, the length in the prefix.
"""

import dataclasses
from typing import Annotated

import numpy as np

from data_pipelines.config import OneOf
from data_pipelines.prompts.choice_turns import write_choice_turn
from data_pipelines.prompts.point_turns import (
    write_image_point_turn,
    write_multi_image_point_turn,
    write_video_point_turn,
)
from data_pipelines.prompts.prompt_error import prompt_error
from data_pipelines.prompts.style_prefix import STYLE_PREFIXES, add_prefix, style_prefix
from data_pipelines.prompts.text_turns import write_text_turn
from data_pipelines.prompts.track_turns import write_track_turn
from data_pipelines.records.annotations import Choice, InlinePoints, Message, Points, Text, Tracks
from data_pipelines.records.styles import CHOICE, IMAGE_POINTS, IMAGES_POINTS, STYLES, TRACKS, VIDEO_POINTS, WORDS
from data_pipelines.text.point_tag import SEPARATORS


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """How a message is worded."""

    templates: bool  # True words questions with drawn templates; False asks the bare question or label
    style_prefix: Annotated[str, OneOf(STYLE_PREFIXES)]  # the text that names the style before the first question
    points_format: Annotated[str, OneOf(SEPARATORS)]  # of points and tracks: "html-v1" (pre-training) or "html-v2"


@dataclasses.dataclass(frozen=True)
class TurnText:
    """The user's text and the answer of one turn, without the chat format around them."""

    user: str
    answer: str


_ANNOTATIONS = {  # kind of style -> types of its annotation
    WORDS: (Text, InlinePoints),
    CHOICE: (Choice,),
    IMAGE_POINTS: (Points,),
    IMAGES_POINTS: (Points,),
    VIDEO_POINTS: (Points,),
    TRACKS: (Tracks,),
}


def write_turn(
    message: Message,
    cfg: PromptConfig,
    rng: np.random.Generator,
    *,
    first: bool,
    times: np.ndarray | None,
    n_images: int,
) -> TurnText:
    """The user's text and the answer of a message. `message.user` is used verbatim, without template or prefix.

    Args:
      rng: the source of all randomness.
      first: whether this is the first turn of its conversation, the only one with a style prefix.
      times: float[T], sampled frames of the example's video in seconds since the start of the clip; None without one.
      n_images: number of images of the example.

    Raises:
      ExampleError: the message cannot be written; the error names its style.
    """
    _check_message(message, times, n_images)
    kind, templated, version = STYLES[message.style].kind, cfg.templates, cfg.points_format
    if kind == WORDS:
        user, answer = write_text_turn(message, templated, version, rng)
    elif kind == CHOICE:
        user, answer = write_choice_turn(message, templated, rng)
    elif kind == IMAGE_POINTS:
        user, answer = write_image_point_turn(message, templated, version, rng)
    elif kind == IMAGES_POINTS:
        user, answer = write_multi_image_point_turn(message, templated, version, n_images, rng)
    elif kind == VIDEO_POINTS:
        user, answer = write_video_point_turn(message, templated, version, rng)
    else:
        user, answer = write_track_turn(message, templated, version, times, rng)
    if first and message.user is None:
        user = add_prefix(style_prefix(message.style, answer, cfg.style_prefix, rng), user)
    return TurnText(user, answer)


def _check_message(message: Message, times: np.ndarray | None, n_images: int) -> None:
    """Raise ExampleError unless style, annotation and media fit together."""
    style = message.style
    if style not in STYLES:
        raise prompt_error(style, "there is no such style", "bad_record")
    kind = STYLES[style].kind
    if not isinstance(message.answer, _ANNOTATIONS[kind]):
        wanted = " or ".join(annotation.__name__ for annotation in _ANNOTATIONS[kind])
        raise prompt_error(style, f"annotated with {type(message.answer).__name__}, not {wanted}", "bad_record")
    if kind in (VIDEO_POINTS, TRACKS) and times is None:
        raise prompt_error(style, "the example has no video", "bad_record")
    if kind in (IMAGE_POINTS, IMAGES_POINTS):
        missing = sorted({point.key for point in message.answer.points if point.key > n_images})
        if missing:
            raise prompt_error(style, f"points in images {missing}, but the example has {n_images}", "bad_record")
        if not n_images:
            raise prompt_error(style, "the example has no image", "bad_record")
