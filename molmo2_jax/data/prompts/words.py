"""Answers in words: captions, transcripts, answers to questions.

    short answer    What is he holding? Answer in a few words.      A kite.
    caption         Describe the video from 3.0 to 5.5 seconds.     A dog runs ...
    reasons         {question} Provide reasoning steps ...          The bar is at 40. Answer: 40

Source: public reference olmo/preprocessing/data_formatter.py.
"""

import collections

import numpy as np

from molmo2_jax.data.annotations import InlinePoints, Message, Text
from molmo2_jax.data.prompts.ask_questions import ANSWER_AFTER_REASONS
from molmo2_jax.data.prompts.points import write_inline
from molmo2_jax.data.prompts.templates import draw, fill, keywords
from molmo2_jax.data.prompts.trouble import trouble
from molmo2_jax.data.styles import NAME, QUESTION, STYLES

IN_SECONDS = 0.5  # share of times in seconds; the others are HH:MM:SS.s


def write_words(message: Message, templated: bool, version: str, rng: np.random.Generator) -> tuple[str, str]:
    """The user's text and the answer in words, places in it as tags.

    Raises ExampleError for a style that lacks its question, its time, its object or its reasons.
    """
    if isinstance(message.answer, InlinePoints):
        answer = write_inline(message.style, message.answer, version)
    else:
        answer = _answer(message.style, message.answer, rng)
    user = _asked(message, templated, rng) if message.user is None else message.user
    return user, answer


def _answer(style: str, text: Text, rng: np.random.Generator) -> str:
    """The most frequent answer, drawn among equals, behind its reasons."""
    if not text.answers:
        raise trouble(style, "no answer", "bad_record")
    counts = collections.Counter(text.answers)
    most = max(counts.values())
    answer = draw(tuple(answer for answer, count in counts.items() if count == most), rng)
    if text.explanation is not None:
        return ANSWER_AFTER_REASONS.format(explanation=text.explanation, answer=answer)
    if STYLES[style].asks == "chain_of_thought":
        raise trouble(style, "no explanation before the answer", "bad_record")
    return answer


def _asked(message: Message, templated: bool, rng: np.random.Generator) -> str:
    question, asks = message.question, STYLES[message.style].asks
    if asks == NAME:
        return question or ""
    needs = {"question"} if asks == QUESTION else keywords(asks)
    if "question" in needs:
        if question is None:
            raise trouble(message.style, "no question", "bad_record")
        return fill(asks, rng, question=question) if templated and asks != QUESTION else question
    if question is not None:
        return question
    about = _about(message, templated, rng)
    if about.keys() != needs:
        what = f"its 'about' {message.about!r} does not tell {sorted(needs) or 'nothing'}"
        raise trouble(message.style, what, "bad_record")
    return fill(asks, rng, **about) if templated else "-".join(about.values())


def _about(message: Message, templated: bool, rng: np.random.Generator) -> dict[str, str]:
    """What the style asks about, by the keyword of its templates.

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
    minutes, tenths = divmod(round(10 * round(float(seconds), 1)), 600)  # the tenth that seconds would show
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{tenths // 10:02d}.{tenths % 10}"
