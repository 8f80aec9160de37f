"""What the page's player shows of an example: pictures, the points and tracks of its answers, and subtitles.

    pictures   0.0 s    0.5 s    1.0 s       or       image 1 (overview and detail crops)    image 2
    tags       A cyclist   1 . . 1                    a point is [object, picture, x, y, key]
    subtitles  "Hello" 0.0 - 0.8

x and y are fractions of the picture's width and height. A point is drawn on the picture that its key, seconds or an
image number, refers to. If there is none, its picture is -1 and the page lists it.
"""

import difflib
import re
from collections.abc import Sequence

from data_pipelines.text import points
from molmo2_jax.viewer.answers import Answer
from molmo2_jax.viewer.row_reader import Picture, RowExample

SAME_TIME = 0.05 + 1e-6  # seconds: points are written in tenths, timestamps of some modes in hundredths


def example_data(example: RowExample) -> dict:
    """The pictures, tags and subtitles of an example. `timed`: every picture has a timestamp."""
    shown = example.pictures
    return {
        "timed": all(isinstance(picture.key, float) for picture in shown),
        "pictures": [
            {
                "crop": picture.crop,
                "key": picture.key,
                "caption": picture.caption,
                "size": picture.size,
                "detail_crops": [[detail.crop, detail.x, detail.y] for detail in picture.detail_crops],
            }
            for picture in shown
        ],
        "tags": [{"branch": r.branch, **tag} for r in example.replies for tag in answer_tags(r.text, shown)],
        "subtitles": [[line.start, line.stop, line.text] for line in example.subtitles],
    }


def answer_tags(text: str, pictures: Sequence[Picture]) -> list[dict]:
    """Every tag of an answer: kind ("points", "tracks"), label, and points as [object, picture, x, y, key]."""
    return [
        {
            "kind": tag.kind,
            "label": tag.label if tag.alt is None else f"{tag.label} ({tag.alt})",
            "points": [[p.index, find_picture(p.key, pictures), p.x, p.y, p.key] for p in tag.points],
        }
        for tag in points.parse_points(text)
    ]


def find_picture(key: float | int, pictures: Sequence[Picture]) -> int:
    """Index of the picture that a point's key refers to: the nearest in seconds (float), or an image number (int).

    -1 if there is none.
    """
    distances = [(abs(picture.key - key), n) for n, picture in enumerate(pictures) if type(picture.key) is type(key)]
    distance, number = min(distances, default=(1.0, -1))
    return number if distance <= SAME_TIME else -1


def answer_card(answer: Answer, asked_in: tuple[int, int] | None, pictures: Sequence[Picture]) -> dict:
    """A prompt with both answers as parts, [text, whether the other answer lacks it], and the tags of both.

    `asked_in`: (row, example) that has the prompt, None if there is none; points are drawn on its `pictures`.
    """
    annotated, generated = differences(answer.annotated, answer.generated)
    return {
        "prompt": answer.prompt,
        "asked_in": asked_in,
        "equal": answer.equal,
        "annotated": {"parts": annotated, "tags": answer_tags(answer.annotated, pictures)},
        "generated": {"parts": generated, "tags": answer_tags(answer.generated, pictures)},
    }


def differences(left: str, right: str) -> tuple[list[list], list[list]]:
    """Both texts in parts: [text, True] for words and numbers that the other does not have, else [text, False].

    "1 car", "2 car"  ->  [["1", True], [" car", False]], [["2", True], [" car", False]]
    """
    out: tuple[list[list], list[list]] = ([], [])
    words = [re.findall(r"\w+|\W", text) for text in (left, right)]
    for kind, a, b, c, d in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, text in zip(out, ("".join(words[0][a:b]), "".join(words[1][c:d])), strict=True):
            if text:
                side.append([text, kind != "equal"])
    return out
