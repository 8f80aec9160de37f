"""Questions with text answers: captions, transcripts, short answers.

    short answer    What is he holding? Answer in a few words.      A kite.
    caption         Describe the video from 3.0 to 5.5 seconds.     A dog runs ...
    reasons         {question} Provide reasoning steps ...          The bar is at 40. Answer: 40

Source: public reference olmo/preprocessing/data_formatter.py.
"""

import collections

import numpy as np

from data_pipelines.prompts.point_turns import write_inline_points
from data_pipelines.prompts.prompt_error import prompt_error
from data_pipelines.prompts.question_templates import ANSWER_AFTER_REASONS
from data_pipelines.prompts.templates import draw, fill_template, template_fields
from data_pipelines.records.annotations import InlinePoints, Message, Text
from data_pipelines.records.styles import NAME, QUESTION, STYLES

IN_SECONDS = 0.5  # share of prompts with times in seconds; the others have HH:MM:SS.s


def write_text_turn(message: Message, templated: bool, version: str, rng: np.random.Generator) -> tuple[str, str]:
    """The user's text and the text answer, with inline points as tags.

    Raises ExampleError if the message lacks the question, time, object, answer or explanation that its style needs.
    """
    if isinstance(message.answer, InlinePoints):
        answer = write_inline_points(message.style, message.answer, version)
    else:
        answer = _draw_answer(message.style, message.answer, rng)
    user = _question(message, templated, rng) if message.user is None else message.user
    return user, answer


def _draw_answer(style: str, text: Text, rng: np.random.Generator) -> str:
    """The most frequent answer, after its explanation; ties are broken at random."""
    if not text.answers:
        raise prompt_error(style, "no answer", "bad_record")
    counts = collections.Counter(text.answers)
    highest = max(counts.values())
    answer = draw(tuple(answer for answer, count in counts.items() if count == highest), rng)
    if text.explanation is not None:
        return ANSWER_AFTER_REASONS.format(explanation=text.explanation, answer=answer)
    if STYLES[style].asks == "chain_of_thought":
        raise prompt_error(style, "no explanation before the answer", "bad_record")
    return answer


def _question(message: Message, templated: bool, rng: np.random.Generator) -> str:
    question, asks = message.question, STYLES[message.style].asks
    if asks == NAME:
        return question or ""
    needs = {"question"} if asks == QUESTION else template_fields(asks)
    if "question" in needs:
        if question is None:
            raise prompt_error(message.style, "no question", "bad_record")
        return fill_template(asks, rng, question=question) if templated and asks != QUESTION else question
    if question is not None:
        return question
    about = _about_fields(message, templated, rng)
    if about.keys() != needs:
        problem = f"'about' is {message.about!r}, but the style needs {sorted(needs) or 'none'}"
        raise prompt_error(message.style, problem, "bad_record")
    return fill_template(asks, rng, **about) if templated else "-".join(about.values())


def _about_fields(message: Message, templated: bool, rng: np.random.Generator) -> dict[str, str]:
    """What the message is about, as the fields of its templates.

    62.5         {"time": "62.5 seconds"}                       or {"time": "00:01:02.5"}
    (3.0, 5.5)   {"start": "3.0", "end": "5.5 seconds"}         or {"start": "00:00:03.0", "end": "00:00:05.5"}
    """
    about = message.about
    if about is None:
        return {}
    if isinstance(about, str):
        return {"object": about}
    times = about if isinstance(about, tuple) else (about,)
    if not templated:
        texts = [str(round(float(time), 2)) for time in times]
    elif rng.random() < IN_SECONDS:
        texts = [str(round(float(time), 1)) for time in times]
        texts[-1] += " seconds"
    else:
        texts = [clock(time) for time in times]
    return dict(zip(("start", "end") if len(times) == 2 else ("time",), texts, strict=True))


def clock(seconds: float) -> str:
    """3725.04  ->  01:02:05.0"""
    # Rounded to tenths first, so that the clock shows the same tenth as a time in seconds.
    minutes, tenths = divmod(round(10 * round(float(seconds), 1)), 600)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{tenths // 10:02d}.{tenths % 10}"
