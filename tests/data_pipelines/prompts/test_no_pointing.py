"""Which questions look like counting, and the prefix that they get."""

import numpy as np
import pytest

from data_pipelines.prompts.no_pointing import NO_POINTING, looks_like_counting, without_pointing
from tests.data_pipelines.prompts.messages import share


@pytest.mark.parametrize(
    "question",
    [
        "How many dogs are there?",
        "how many times does he jump?",
        "In the second picture, how many of the cups are full?",
        "Count the cups.",
        "Please tally all red cars",
        "What is the number of wheels?",
        "Tell me the total count of chairs in the room",
        "Fill in: there are ___ cats.",
    ],
)
def test_counting(question):
    assert looks_like_counting(question)
    prefixed = without_pointing(question, np.random.default_rng(0))
    assert prefixed.endswith(f" {question}") and prefixed.removesuffix(f" {question}") in NO_POINTING


@pytest.mark.parametrize(
    "question",
    [
        "How many miles is a marathon?",
        "How many kilograms does it weigh?",
        "how many different ways lead there?",
        "What is the number of the player who scored?",
        "What amount of money is on the table?",
        "Which country is this?",
        "Describe the accountant.",
    ],
)
def test_not_counting(question):
    assert not looks_like_counting(question)
    assert without_pointing(question, np.random.default_rng(0)) == question


def test_prefixes_are_drawn_uniformly():
    first = NO_POINTING[0]
    assert share(lambda rng: without_pointing("How many dogs?", rng).startswith(first + " How")) == pytest.approx(
        1 / len(NO_POINTING), abs=0.012
    )
