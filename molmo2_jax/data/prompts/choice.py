"""Multiple choice in many layouts, one drawn for each message.

    Which color is it?                               Q: Which color is it?           Answer with the letter alone.
    Only return the correct answer option.           Options: (i) red; (ii) blue     Which color is it?
    A. red                                                                           a) red
    B. blue                                                                          b) blue
    ->  B. blue                                      ->  (ii) blue                   ->  b

The first is the one that evaluations use, and stands alone where prompts are not templated. The odds are those of the
public reference (olmo/preprocessing/multiple_choice_templates.py), the words are ours (ask_choice.py).
"""

import dataclasses

import numpy as np

from molmo2_jax.data.annotations import Choice, Message
from molmo2_jax.data.prompts import ask_choice
from molmo2_jax.data.prompts.templates import draw, fill
from molmo2_jax.data.prompts.trouble import trouble

STANDARD = 0.1  # share of messages in the layout of evaluations
NAME_ALONE = 0.25  # ... of the others whose answer is the option's name, without its text
NAMED = 0.8  # ... of the rest whose options have names at all
COMMON_MARKER = 0.8
INLINE = 0.1  # options on one line
BULLETED = 0.5  # of options without names on lines of their own
INSTRUCTED = 0.5  # with a sentence that says what to answer
TRUE_WORD, IDENTIFIER = 0.6, 0.8  # "letter" for letters below the first, "identifier" from there to the second


@dataclasses.dataclass(frozen=True)
class _Options:
    """Options as laid out. `answers`: what names each in the answer; `word`: what its name is called, "" without."""

    text: str
    answers: tuple[str, ...]
    word: str


def write_choice(message: Message, templated: bool, rng: np.random.Generator) -> tuple[str, str]:
    """The user's text and the answer. Words of the user's own, `message.user`, get the answer of the standard layout.

    Several right options are all in the answer, one a line. Raises ExampleError for options that are no choice: twice
    the same, none or no such right one, a blank right one without a name, more than there are letters.
    """
    choice = message.answer
    _check(message.style, choice)
    standard = _standard(choice)
    right = "\n".join(standard.answers[place] for place in choice.correct)
    if message.user is not None:
        return message.user, right
    question = message.question
    if question is None:
        raise trouble(message.style, "options without a question", "bad_record")
    if not templated:
        return f"{question}\n{standard.text}\n", right
    if len(choice.correct) > 1 or message.style == "video_multiple_choice_multiple_correct":
        return fill("several_correct", rng, question=question, options=standard.text), right
    if rng.random() < STANDARD:
        return ask_choice.STANDARD.format(question=question, options=standard.text), right
    return _drawn(question, choice, rng)


def _check(style: str, choice: Choice) -> None:
    options = [option.strip() for option in choice.options]
    twice = sorted({option for option in options if options.count(option) > 1})
    if twice:
        raise trouble(style, f"options are there twice: {twice}", "bad_options")
    if not choice.correct:
        raise trouble(style, "no option is right", "bad_options")
    places = set(choice.correct)
    if len(places) < len(choice.correct) or not places <= set(range(len(options))):
        raise trouble(style, f"right options {choice.correct} are no places among {len(options)}", "bad_options")
    if not choice.labelled and not all(options[place] for place in places):
        raise trouble(style, "the right option is blank and options have no letters", "bad_options")
    if choice.labelled and len(options) > len(ask_choice.NAMES["upper"][0]):
        raise trouble(style, f"{len(options)} options are more than there are letters", "unwritable")


def _standard(choice: Choice) -> _Options:
    if not choice.labelled:
        return _Options("\n".join(choice.options), choice.options, "")
    letters, word = ask_choice.NAMES["upper"]
    lines = tuple(f"{letter}. {option}" for letter, option in zip(letters, choice.options, strict=False))
    return _Options("\n".join(lines), lines, word)


def _drawn(question: str, choice: Choice, rng: np.random.Generator) -> tuple[str, str]:
    """A question with one right option in a layout drawn part by part."""
    (right,) = choice.correct
    name_alone = choice.labelled and rng.random() < NAME_ALONE
    named = choice.labelled and (name_alone or not choice.options[right].strip() or rng.random() < NAMED)
    inline, instructed = rng.random() < INLINE, rng.random() < INSTRUCTED
    options = _named(choice.options, name_alone, inline, rng) if named else _bare(choice.options, inline, rng)
    if instructed:
        layout, instruct = draw(ask_choice.INSTRUCTION_LAYOUTS, rng), _instruction(name_alone, named, rng)
    else:
        layouts = ask_choice.NAME_LAYOUTS if name_alone else ask_choice.OPTION_LAYOUTS
        layout, instruct = draw(layouts, rng), ""
    instruct = instruct.format(name=options.word)
    # The record's own texts go in last, as values.
    user = layout.format(question=question, options=options.text, name=options.word, instruct=instruct)
    return user, options.answers[right]


def _instruction(name_alone: bool, named: bool, rng: np.random.Generator) -> str:
    if name_alone:
        return draw(ask_choice.NAME_INSTRUCTIONS, rng)
    return draw(ask_choice.OPTION_INSTRUCTIONS + (ask_choice.NAMED_OPTION_INSTRUCTIONS if named else ()), rng)


def _named(options: tuple[str, ...], name_alone: bool, inline: bool, rng: np.random.Generator) -> _Options:
    """Options with names: (i) red, (ii) blue. Only names of which there are enough are drawn."""
    markers = ask_choice.COMMON_MARKERS if rng.random() < COMMON_MARKER else ask_choice.ODD_MARKERS
    marker = draw(markers, rng)
    kinds = tuple(kind for kind, (names, _) in ask_choice.NAMES.items() if len(names) >= len(options))
    names, word = ask_choice.NAMES[draw(kinds, rng)]
    names = names[: len(options)]
    parts = tuple(marker.format(name) + option for name, option in zip(names, options, strict=True))
    place = rng.random()
    if place >= TRUE_WORD:
        word = ask_choice.OTHER_WORDS[place >= IDENTIFIER]
    return _Options(_joined(parts, inline, marker, rng), names if name_alone else parts, word)


def _bare(options: tuple[str, ...], inline: bool, rng: np.random.Generator) -> _Options:
    """Options without names, the text itself being the answer."""
    bullet = f"{draw(ask_choice.BULLETS, rng)} " if not inline and rng.random() < BULLETED else ""
    parts = tuple(bullet + option for option in options)
    return _Options(_joined(parts, inline, None, rng), options, "")


def _joined(parts: tuple[str, ...], inline: bool, marker: str | None, rng: np.random.Generator) -> str:
    """Parts on lines of their own, or on one with a drawn separator that no part has; `marker` None: without names."""
    separators = [sep for sep in ask_choice.INLINE_SEPARATORS if sep and not any(sep.strip() in part for part in parts)]
    if marker is not None:
        separators.append("")
    if not inline or not separators:
        return "\n".join(parts)
    return (draw(tuple(separators), rng) + " ").join(parts)
