"""A prefix for questions that could be answered by pointing, but whose answers are text.

    without_pointing("How many dogs are there?", rng)      ->    No points: How many dogs are there?
    without_pointing("How many miles is a marathon?", rng) ->    How many miles is a marathon?

For datasets of questions that are mixed with pointing data (PixMo's questions, captions as questions, several images),
so that a count alone does not mean pointing. Source: public reference olmo/data/pixmo_datasets.py; our own wording.
"""

import re

import numpy as np

from data_pipelines.prompts.templates import draw

NO_POINTING = (
    "No points:",
    "no pointing:",
    "no points please.",
    "Without points:",
    "Without pointing,",
    "Without pointing at anything:",
    "without coordinates:",
    "Do not point.",
    "Don't point:",
    "Do not use points.",
    "Do not mark anything.",
    "Please don't point.",
    "Please do not point at things.",
    "Answer without pointing:",
    "Answer without points.",
    "Answer in words, not points:",
    "Answer in plain text:",
    "Answer in text only.",
    "Just text:",
    "Text only:",
    "text, no points:",
    "Only words, please.",
    "In words:",
    "Say it without points:",
    "Reply without points.",
    "Reply in words only:",
    "Skip the points.",
    "Leave out points:",
    "Pointing is not needed.",
    "No need to point:",
    "Points off.",
    "[no points]",
)

# "How many" of these asks for a quantity, not for things that can be pointed at.
_UNITS = (
    r"seconds?|minutes?|hours?|days?|weeks?|months?|years?|decades?|centuries|ways|different ways|"
    r"\w*meters?|\w*metres?|inch(?:es)?|feet|foot|yards?|miles?|acres?|square|cubic|"
    r"\w*grams?|pounds?|tons?|ounces?|\w*lit(?:er|re)s?|gallons?|quarts?|pints?|fluid|"
    r"degrees?|calories|hertz|horsepower|\w*bytes?|\w*watts?|psi|atmospheres?|percent|dollars?|euros?|"
    r"views|likes|points"
)
_COUNTING = re.compile(
    rf"\bhow ?many (?!(?:{_UNITS})\b)\w"
    r"|(?<!do not )(?<!don't )\b(?:count|tally) (?:up )?(?:all|every|each|the)\b"
    rf"|\b(?:total )?(?:number|count|amount) of (?!(?:{_UNITS}|money|the)\b)\w"
    r"|\b(?:there are|a total of) _{2,}",
    re.IGNORECASE,
)


def looks_like_counting(question: str) -> bool:
    """Whether the answer could be a count, and so points. Prefers false positives to false negatives."""
    return _COUNTING.search(question) is not None


def without_pointing(question: str, rng: np.random.Generator) -> str:
    """The question; if it looks like counting, after a drawn prefix that rules out points."""
    return f"{draw(NO_POINTING, rng)} {question}" if looks_like_counting(question) else question
