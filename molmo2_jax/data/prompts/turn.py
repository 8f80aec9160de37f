"""From an annotated message to what the user says and what the model is to answer.

    Message("video_point", question=None, answer=Points("cat", (Point(2.5, 0.5, 0.5),), ...))
      ->  Written("Point to cat.", '<points coords="2.5 1 500 500">cat</points>')

How it is worded is drawn anew each time: templates, layouts, which images, which moment, the length in the prefix.
"""

import dataclasses
from typing import Protocol

import numpy as np

from molmo2_jax.data.annotations import Choice, InlinePoints, Message, Points, Text, Tracks
from molmo2_jax.data.prompts.choice import write_choice
from molmo2_jax.data.prompts.points import write_image_points, write_images_points, write_video_points
from molmo2_jax.data.prompts.prefix import put_before, style_prefix
from molmo2_jax.data.prompts.tracks import write_track_turn
from molmo2_jax.data.prompts.trouble import trouble
from molmo2_jax.data.prompts.words import write_words
from molmo2_jax.data.styles import CHOICE, IMAGE_POINTS, IMAGES_POINTS, STYLES, TRACKS, VIDEO_POINTS, WORDS


class PromptConfig(Protocol):
    """`prompts`: "none" or "templates"; `style_prefix`: see prefix.py; `points_format`: "html-v1" or "html-v2"."""

    prompts: str
    style_prefix: str
    points_format: str


@dataclasses.dataclass(frozen=True)
class Written:
    """What the user says and what the model is to answer, without the chat format around them."""

    user: str
    answer: str


_ANNOTATIONS = {  # what a style of a kind is answered with
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
) -> Written:
    """The two texts of a message. All randomness is `rng`'s.

    `first`: the first turn of its conversation, the only one with a style prefix. `times`: float[T], sampled frames of
    the example's video in seconds since the clip's start, None without one. `n_images`: how many images it has.
    `message.user` is taken as it is, without template or prefix. Raises ExampleError, naming the style, where the
    message cannot be written, and ValueError for a config value that is none.
    """
    if cfg.prompts not in ("none", "templates"):
        raise ValueError(f"prompts {cfg.prompts!r} is not one of none, templates")
    _check(message, times, n_images)
    kind, templated, version = STYLES[message.style].kind, cfg.prompts == "templates", cfg.points_format
    if kind == WORDS:
        user, answer = write_words(message, templated, version, rng)
    elif kind == CHOICE:
        user, answer = write_choice(message, templated, rng)
    elif kind == IMAGE_POINTS:
        user, answer = write_image_points(message, templated, version, rng)
    elif kind == IMAGES_POINTS:
        user, answer = write_images_points(message, templated, version, n_images, rng)
    elif kind == VIDEO_POINTS:
        user, answer = write_video_points(message, templated, version, rng)
    else:
        user, answer = write_track_turn(message, templated, version, times, rng)
    if first and message.user is None:
        user = put_before(style_prefix(message.style, answer, cfg.style_prefix, rng), user)
    return Written(user, answer)


def _check(message: Message, times: np.ndarray | None, n_images: int) -> None:
    """Raise ExampleError unless style, annotation and medium go together."""
    style = message.style
    if style not in STYLES:
        raise trouble(style, "there is no such style", "bad_record")
    kind = STYLES[style].kind
    if not isinstance(message.answer, _ANNOTATIONS[kind]):
        wanted = " or ".join(annotation.__name__ for annotation in _ANNOTATIONS[kind])
        raise trouble(style, f"annotated with {type(message.answer).__name__}, not {wanted}", "bad_record")
    if kind in (VIDEO_POINTS, TRACKS) and times is None:
        raise trouble(style, "the example has no video", "bad_record")
    if kind in (IMAGE_POINTS, IMAGES_POINTS):
        far = sorted({point.key for point in message.answer.points if point.key > n_images})
        if far or not n_images:
            raise trouble(style, f"points in images {far} of an example with {n_images}", "bad_record")
