"""Points as a question and an answer: of one image, of several, of a video, and inside an answer in words.

    image     How many dogs are there?           There are 1 <points coords="1 1 050 1000">dogs</points>.
    images    In image_1, image_3, point to cat. <points coords="1 1 010 020;3 2 500 500">cat</points>
    video     Point to the cat.                  <points coords="2.5 1 500 500">the cat</points>
    inline    Is it open?                        Yes, by <points alt="a valve" coords="1 1 500 500">this</points>.

Source: public reference olmo/preprocessing/data_formatter.py.
"""

import numpy as np

from molmo2_jax.data.annotations import POINT_MARK, InlinePoints, Message, Points
from molmo2_jax.data.prompts.templates import fill
from molmo2_jax.data.prompts.trouble import trouble, writing
from molmo2_jax.data.styles import STYLES
from molmo2_jax.text.points import write_points

ALL_IMAGES = 0.5  # share of questions about all images; the others name a part of them
AS_ONE_IMAGE = 0.5  # of plain pointing in all images, worded as for one
NOT_COUNTED = "Sorry, I can't count {label}."


def write_image_points(message: Message, templated: bool, version: str, rng: np.random.Generator) -> tuple[str, str]:
    """Points of one image. Its label is written in small letters, in the question and in the tag."""
    label = message.answer.label.lower()
    return _asked(message, label, templated, rng), _answer(message, label, None, version)


def write_video_points(message: Message, templated: bool, version: str, rng: np.random.Generator) -> tuple[str, str]:
    """Points of a video, the label as annotated."""
    label = message.answer.label
    return _asked(message, label, templated, rng), _answer(message, label, None, version)


def write_images_points(
    message: Message, templated: bool, version: str, n_images: int, rng: np.random.Generator
) -> tuple[str, str]:
    """Points of several images: half the time of all, else of a drawn part, which the question lists and no other.

    A question that the record brings is about all images.
    """
    label, asks = message.answer.label, STYLES[message.style].asks
    given = message.question if message.user is None else message.user
    if given is not None or not templated:
        return label if given is None else given, _answer(message, label, None, version)
    if n_images == 1 or rng.random() < ALL_IMAGES:
        if asks == "multi_image_pointing" and rng.random() < AS_ONE_IMAGE:
            user = fill("pointing", rng, label=label)
        else:
            user = fill(asks, rng, label=label, images="all images")
        return user, _answer(message, label, None, version)
    chosen = sorted(1 + int(place) for place in rng.permutation(n_images)[: rng.integers(1, n_images)])
    user = fill(asks, rng, label=label, images=", ".join(f"image_{number}" for number in chosen))
    return user, _answer(message, label, chosen, version)


def write_inline(style: str, answer: InlinePoints, version: str) -> str:
    """An answer in words, each of its marks replaced by a tag."""
    texts = answer.text.split(POINT_MARK)
    if len(texts) - 1 != len(answer.points):
        what = f"{len(texts) - 1} {POINT_MARK} marks for {len(answer.points)} annotations of points"
        raise trouble(style, what, "bad_record")
    written = [texts[0]]
    for found, text in zip(answer.points, texts[1:], strict=True):
        if not found.points:
            raise trouble(style, f"a mark for {found.label!r}, which has no points", "unwritable")
        with writing(style):
            written += [write_points(found.label, found.points, version=version, alt=found.alt), text]
    return "".join(written)


def _asked(message: Message, label: str, templated: bool, rng: np.random.Generator) -> str:
    if message.user is not None:
        return message.user
    if message.question is not None:
        return message.question
    return fill(STYLES[message.style].asks, rng, label=label) if templated else label


def _answer(message: Message, label: str, images: list[int] | None, version: str) -> str:
    """The points of `images` (None: all there are), or why there cannot be any."""
    answer: Points = message.answer
    if answer.unanswerable is not None:
        return answer.unanswerable or NOT_COUNTED.format(label=label)
    points = [point for point in answer.points if images is None or point.key in images]
    with writing(message.style):
        mode = STYLES[message.style].points
        return write_points(label, points, version=version, mode=mode, alt=answer.alt)
