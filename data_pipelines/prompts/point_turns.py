"""Questions and answers with points: of one image, of several images, of a video, and inside a text answer.

    image     How many dogs are there?           There are 1 <points coords="1 1 050 1000">dogs</points>.
    images    In image_1, image_3, point to cat. <points coords="1 1 010 020;3 2 500 500">cat</points>
    video     Point to the cat.                  <points coords="2.5 1 500 500">the cat</points>
    inline    Is it open?                        Yes, by <points alt="a valve" coords="1 1 500 500">this</points>.

Source: public reference olmo/preprocessing/data_formatter.py.
"""

import numpy as np

from data_pipelines.prompts.prompt_error import prompt_error, unwritable_as_prompt_error
from data_pipelines.prompts.templates import fill_template
from data_pipelines.records.annotations import POINT_MARK, InlinePoints, Message, Points
from data_pipelines.records.styles import STYLES
from data_pipelines.text.points import write_points

ALL_IMAGES = 0.5  # share of questions about all images; the others list some of them
AS_ONE_IMAGE = 0.5  # share of plain pointing in all images that is worded as for one image
NOT_COUNTED = "Sorry, I can't count {label}."


def write_image_point_turn(
    message: Message, templated: bool, version: str, rng: np.random.Generator
) -> tuple[str, str]:
    """Points of one image. The label is in lower case, in the question and in the tag."""
    label = message.answer.label.lower()
    return _label_question(message, label, templated, rng), _points_answer(message, label, None, version)


def write_video_point_turn(
    message: Message, templated: bool, version: str, rng: np.random.Generator
) -> tuple[str, str]:
    """Points of a video, with the label as annotated."""
    label = message.answer.label
    return _label_question(message, label, templated, rng), _points_answer(message, label, None, version)


def write_multi_image_point_turn(
    message: Message, templated: bool, version: str, n_images: int, rng: np.random.Generator
) -> tuple[str, str]:
    """Points of several images. Half of the questions are about all images, the others list a drawn subset.

    The answer points only in the images that the question is about. A question from the record is about all images.
    """
    label, asks = message.answer.label, STYLES[message.style].asks
    given = message.question if message.user is None else message.user
    if given is not None or not templated:
        return label if given is None else given, _points_answer(message, label, None, version)
    if n_images == 1 or rng.random() < ALL_IMAGES:
        if asks == "multi_image_pointing" and rng.random() < AS_ONE_IMAGE:
            user = fill_template("pointing", rng, label=label)
        else:
            user = fill_template(asks, rng, label=label, images="all images")
        return user, _points_answer(message, label, None, version)
    chosen = sorted(1 + int(index) for index in rng.permutation(n_images)[: rng.integers(1, n_images)])
    user = fill_template(asks, rng, label=label, images=", ".join(f"image_{number}" for number in chosen))
    return user, _points_answer(message, label, chosen, version)


def write_inline_points(style: str, answer: InlinePoints, version: str) -> str:
    """A text answer, with each POINT_MARK replaced by a tag."""
    texts = answer.text.split(POINT_MARK)
    if len(texts) - 1 != len(answer.points):
        problem = f"{len(texts) - 1} {POINT_MARK} marks for {len(answer.points)} annotations of points"
        raise prompt_error(style, problem, "bad_record")
    written = [texts[0]]
    for found, text in zip(answer.points, texts[1:], strict=True):
        if not found.points:
            raise prompt_error(style, f"a {POINT_MARK} mark for {found.label!r}, which has no points", "unwritable")
        with unwritable_as_prompt_error(style):
            written += [write_points(found.label, found.points, version=version, alt=found.alt), text]
    return "".join(written)


def _label_question(message: Message, label: str, templated: bool, rng: np.random.Generator) -> str:
    if message.user is not None:
        return message.user
    if message.question is not None:
        return message.question
    return fill_template(STYLES[message.style].asks, rng, label=label) if templated else label


def _points_answer(message: Message, label: str, images: list[int] | None, version: str) -> str:
    """The points in `images` (None: all images), or the reason why there cannot be any."""
    answer: Points = message.answer
    if answer.unanswerable is not None:
        return answer.unanswerable or NOT_COUNTED.format(label=label)
    points = [point for point in answer.points if images is None or point.key in images]
    with unwritable_as_prompt_error(message.style):
        mode = STYLES[message.style].points
        return write_points(label, points, version=version, mode=mode, alt=answer.alt)
