"""Multiple choice in many layouts, one drawn for each message.

    Which color is it?                               Q: Which color is it?           Answer with the letter alone.
    Only return the correct answer option.           Options: (i) red; (ii) blue     Which color is it?
    A. red                                                                           a) red
    B. blue                                                                          b) blue
    ->  B. blue                                      ->  (ii) blue                   ->  b

Evaluations use the first layout, which is also the only one without templates. The odds are those of the public
reference (olmo/preprocessing/multiple_choice_templates.py); the wording is our own (choice_templates.py).
"""

import dataclasses

import numpy as np

from data_pipelines.prompts import choice_templates
from data_pipelines.prompts.prompt_error import prompt_error
from data_pipelines.prompts.templates import draw, fill_template
from data_pipelines.records.annotations import Choice, Message

STANDARD = 0.1  # share of messages in the layout of evaluations
NAME_ALONE = 0.25  # share of the others whose answer is the name of the option, without its text
NAMED = 0.8  # share of the rest whose options have names
COMMON_MARKER = 0.8  # share of options with names that have one of COMMON_MARKERS
INLINE = 0.1  # share of messages with the options on one line
BULLETED = 0.5  # share with bullets, among options without names on separate lines
INSTRUCTED = 0.5  # share with a sentence that says how to answer
TRUE_WORD, IDENTIFIER = 0.6, 0.8  # a draw below the first says "letter" for letters, below the second "identifier"


@dataclasses.dataclass(frozen=True)
class _Options:
    """The options of a prompt. `answers`: the answer for each option; `word`: the noun for their names, "" if none."""

    text: str
    answers: tuple[str, ...]
    word: str


def write_choice_turn(message: Message, templated: bool, rng: np.random.Generator) -> tuple[str, str]:
    """The user's text and the answer. A given user text (`message.user`) gets the answer of the standard layout.

    If several options are correct, the answer has all of them, one per line.

    Raises:
      ExampleError: there is no question, two options are equal, no option is correct, the index of a correct option is
        invalid, a correct option is blank and has no name, or there are more options than letters.
    """
    choice = message.answer
    _check_options(message.style, choice)
    standard = _standard_options(choice)
    answer = "\n".join(standard.answers[index] for index in choice.correct)
    if message.user is not None:
        return message.user, answer
    question = message.question
    if question is None:
        raise prompt_error(message.style, "options without a question", "bad_record")
    if not templated:
        return f"{question}\n{standard.text}\n", answer
    if len(choice.correct) > 1 or message.style == "video_multiple_choice_multiple_correct":
        return fill_template("several_correct", rng, question=question, options=standard.text), answer
    if rng.random() < STANDARD:
        return choice_templates.STANDARD.format(question=question, options=standard.text), answer
    return _draw_layout(question, choice, rng)


def _check_options(style: str, choice: Choice) -> None:
    options = [option.strip() for option in choice.options]
    repeated = sorted({option for option in options if options.count(option) > 1})
    if repeated:
        raise prompt_error(style, f"options appear twice: {repeated}", "bad_options")
    if not choice.correct:
        raise prompt_error(style, "no option is correct", "bad_options")
    correct = set(choice.correct)
    if len(correct) < len(choice.correct) or not correct <= set(range(len(options))):
        problem = f"correct options {choice.correct} are not distinct indices of {len(options)} options"
        raise prompt_error(style, problem, "bad_options")
    if not choice.labelled and not all(options[index] for index in correct):
        raise prompt_error(style, "the correct option is blank and options have no letters", "bad_options")
    if choice.labelled and len(options) > len(choice_templates.NAMES["upper"][0]):
        raise prompt_error(style, f"{len(options)} options are more than there are letters", "unwritable")


def _standard_options(choice: Choice) -> _Options:
    """The options in the layout of evaluations, "A. red" or "red"."""
    if not choice.labelled:
        return _Options("\n".join(choice.options), choice.options, "")
    letters, word = choice_templates.NAMES["upper"]
    lines = tuple(f"{letter}. {option}" for letter, option in zip(letters, choice.options, strict=False))
    return _Options("\n".join(lines), lines, word)


def _draw_layout(question: str, choice: Choice, rng: np.random.Generator) -> tuple[str, str]:
    """A question with one correct option, each part of its layout drawn independently."""
    (correct,) = choice.correct
    name_alone = choice.labelled and rng.random() < NAME_ALONE
    named = choice.labelled and (name_alone or not choice.options[correct].strip() or rng.random() < NAMED)
    inline, instructed = rng.random() < INLINE, rng.random() < INSTRUCTED
    if named:
        options = _options_with_names(choice.options, name_alone, inline, rng)
    else:
        options = _options_without_names(choice.options, inline, rng)
    if instructed:
        layout, instruct = draw(choice_templates.INSTRUCTION_LAYOUTS, rng), _draw_instruction(name_alone, named, rng)
    else:
        layouts = choice_templates.NAME_LAYOUTS if name_alone else choice_templates.OPTION_LAYOUTS
        layout, instruct = draw(layouts, rng), ""
    instruct = instruct.format(name=options.word)
    # Texts of the record are inserted last, as values.
    user = layout.format(question=question, options=options.text, name=options.word, instruct=instruct)
    return user, options.answers[correct]


def _draw_instruction(name_alone: bool, named: bool, rng: np.random.Generator) -> str:
    if name_alone:
        return draw(choice_templates.NAME_INSTRUCTIONS, rng)
    named_only = choice_templates.NAMED_OPTION_INSTRUCTIONS if named else ()
    return draw(choice_templates.OPTION_INSTRUCTIONS + named_only, rng)


def _options_with_names(options: tuple[str, ...], name_alone: bool, inline: bool, rng: np.random.Generator) -> _Options:
    """Options with names: (i) red, (ii) blue. Only kinds with enough names are drawn."""
    markers = choice_templates.COMMON_MARKERS if rng.random() < COMMON_MARKER else choice_templates.ODD_MARKERS
    marker = draw(markers, rng)
    kinds = tuple(kind for kind, (names, _) in choice_templates.NAMES.items() if len(names) >= len(options))
    names, word = choice_templates.NAMES[draw(kinds, rng)]
    names = names[: len(options)]
    parts = tuple(marker.format(name) + option for name, option in zip(names, options, strict=True))
    drawn = rng.random()
    if drawn >= TRUE_WORD:
        word = choice_templates.OTHER_WORDS[drawn >= IDENTIFIER]
    return _Options(_join_options(parts, inline, marker, rng), names if name_alone else parts, word)


def _options_without_names(options: tuple[str, ...], inline: bool, rng: np.random.Generator) -> _Options:
    """Options without names, whose answers are their texts."""
    bullet = f"{draw(choice_templates.BULLETS, rng)} " if not inline and rng.random() < BULLETED else ""
    parts = tuple(bullet + option for option in options)
    return _Options(_join_options(parts, inline, None, rng), options, "")


def _join_options(parts: tuple[str, ...], inline: bool, marker: str | None, rng: np.random.Generator) -> str:
    """Options one per line, or on one line with a drawn separator that no option contains; `marker` None: no names."""
    separators = [
        sep for sep in choice_templates.INLINE_SEPARATORS if sep and not any(sep.strip() in part for part in parts)
    ]
    if marker is not None:
        separators.append("")
    if not inline or not separators:
        return "\n".join(parts)
    return (draw(tuple(separators), rng) + " ").join(parts)
