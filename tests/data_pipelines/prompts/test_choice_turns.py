"""Multiple choice: every layout can be parsed back into its options, and the answer names the correct one."""

import collections
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import ExampleError
from data_pipelines.prompts import choice_templates
from data_pipelines.records.annotations import Choice
from tests.data_pipelines.prompts.messages import PLAIN, SFT, message, share, write

QUESTION = "Which <|im_end|> {options}?"
COLORS = ("red wine", "navy blue", "light green", "{name}")
STANDARD = "Which one?\nOnly return the correct answer option.\n"


def choice(options=COLORS, correct=(1,), labelled=True, question=QUESTION, style="video_multiple_choice"):
    return message(style, Choice(tuple(options), tuple(correct), labelled), question=question)


def read(user, options):
    """(name or "", text in the prompt) of each option of a prompt; names are of one kind, or there are none."""
    for names, _ in choice_templates.NAMES.values():
        for marker in (*choice_templates.COMMON_MARKERS, *choice_templates.ODD_MARKERS):
            parts = [marker.format(name) + option for name, option in zip(names, options, strict=False)]
            if re.search(r"(?:^|\s)" + r"(?:;| \|\|\|)?\s".join(map(re.escape, parts)), user):
                return list(zip(names, parts, strict=False))
    bullet = f"(?:(?:{'|'.join(map(re.escape, choice_templates.BULLETS))}) )?"
    assert re.search(r"(?:;| \|\|\|)?\s".join(bullet + re.escape(option) for option in options), user), user
    return [("", option) for option in options]


def draws(asked, number):
    rng = np.random.default_rng(0)
    return [write(asked, SFT, rng) for _ in range(number)]


@pytest.mark.parametrize("labelled", [True, False])
def test_every_layout_is_read_back_and_the_answer_names_the_correct_option(labelled):
    for correct in range(len(COLORS)):
        for turn in draws(choice(correct=(correct,), labelled=labelled), 400):
            assert QUESTION in turn.user
            name, text = read(turn.user, COLORS)[correct]
            assert turn.answer == text or (name and turn.answer == name)
            assert labelled or turn.answer == COLORS[correct]


words = st.text("abcdefghijklmnopqrstuvwxyz{}%; ", min_size=4, max_size=12).map(str.strip).filter(lambda s: len(s) > 3)


@settings(max_examples=50)
@given(st.lists(words, min_size=1, max_size=26, unique=True), st.data(), st.integers(0, 2**32))
def test_any_options_are_read_back(options, data, seed):
    correct = data.draw(st.integers(0, len(options) - 1))
    turn = write(choice(options, (correct,)), SFT, seed)
    name, text = read(turn.user, options)[correct]
    assert turn.answer in (name, text)


def test_standard_layouts():
    asked = choice(question="Which one?")
    assert STANDARD + "A. red wine\nB. navy blue\nC. light green\nD. {name}" in {t.user for t in draws(asked, 60)}
    bare = choice(question="Which one?", labelled=False)
    assert STANDARD + "red wine\nnavy blue\nlight green\n{name}" in {t.user for t in draws(bare, 60)}
    plain = write(asked, PLAIN)
    assert plain.user == "Which one?\nA. red wine\nB. navy blue\nC. light green\nD. {name}\n"
    assert plain.answer == "B. navy blue"
    assert write(bare, PLAIN).answer == "navy blue"


def test_a_given_user_text_gets_the_standard_answer():
    asked = message("a_okvqa_mc", Choice(COLORS, (2,), True), user="Pick:\nA. ...")
    assert write(asked, SFT) == write(asked, SFT, 1)
    assert (write(asked, SFT).user, write(asked, SFT).answer) == ("Pick:\nA. ...", "C. light green")


def test_the_odds_are_those_of_the_reference():
    turns = draws(choice(question="Which one?"), 4000)
    drawn = [turn for turn in turns if not turn.user.startswith(STANDARD)]
    assert len(drawn) / len(turns) == pytest.approx(0.9, abs=0.02)
    read_back = [read(turn.user, COLORS) for turn in drawn]
    alone = [turn.answer == names[1][0] for turn, names in zip(drawn, read_back, strict=True)]
    named = [names for names in read_back if names[0][0]]
    assert np.mean(alone) == pytest.approx(0.25, abs=0.025)
    assert len(named) / len(drawn) == pytest.approx(0.25 + 0.75 * 0.8, abs=0.025)
    common = [
        any(marker.format(names[0][0]) + COLORS[0] == names[0][1] for marker in choice_templates.COMMON_MARKERS)
        for names in named
    ]
    assert np.mean(common) == pytest.approx(0.8, abs=0.025)
    kinds = collections.Counter(names[1][0] for names in named)
    assert kinds.keys() == {"B", "b", "2", "ii"}
    assert all(count / len(named) == pytest.approx(0.25, abs=0.03) for count in kinds.values())
    lines = [turn.user.count("\n" + names[2][1]) for turn, names in zip(drawn, read_back, strict=True) if names[0][0]]
    assert np.mean(lines) == pytest.approx(0.9, abs=0.025)
    bare = [turn.user for turn, names in zip(drawn, read_back, strict=True) if not names[0][0] and "\n" in turn.user]
    bulleted = [any(f"{bullet} navy" in user for bullet in choice_templates.BULLETS) for user in bare]
    assert np.mean(bulleted) == pytest.approx(0.5 * 0.9, abs=0.06)


def test_the_noun_for_names_fits_them():
    turns = draws(choice(question="Which one?"), 6000)
    alone = [t.user for t in turns if t.answer in ("B", "b")]  # all these prompts contain the noun
    words = collections.Counter(re.search(r"\b(letter|identifier|label)\b", user)[1] for user in alone)
    assert words["letter"] / len(alone) == pytest.approx(0.6, abs=0.06)
    assert words["identifier"] / len(alone) == pytest.approx(0.2, abs=0.05)
    for answer, other in (("2", "letter|numeral"), ("ii", "letter|number"), ("b", "number|numeral")):
        assert not [t.user for t in turns if t.answer == answer and re.search(rf"\b({other})\b", t.user)]


def test_half_of_the_drawn_layouts_have_an_instruction():
    stems = [re.escape(text).replace(r"\{name\}", r"\w+") for text in choice_templates.NAME_INSTRUCTIONS]
    stems += [re.escape(text) for text in choice_templates.OPTION_INSTRUCTIONS]
    stems += [re.escape(text).replace(r"\{name\}", r"\w+") for text in choice_templates.NAMED_OPTION_INSTRUCTIONS]
    instructed = re.compile("|".join(stems))
    assert share(lambda rng: instructed.search(write(choice(), SFT, rng).user)) == pytest.approx(0.45, abs=0.035)


def test_a_blank_correct_option_always_has_a_name():
    for turn in draws(choice(("", "no", "maybe"), (0,)), 200):
        assert turn.answer.strip()


def test_more_options_than_numerals_have_other_names():
    many = [f"option {chr(97 + index)}" for index in range(24)]
    answers = {turn.answer for turn in draws(choice(many, (23,)), 300)}
    assert {"X", "x"} <= answers and not {"24", "xxiv"} & answers


def test_separators_do_not_appear_in_an_option():
    for turn in draws(choice(("a; b", "c ||| d", "e"), (0,)), 400):
        assert "a; b; c" not in turn.user and "b ||| " not in turn.user


def test_several_correct_options():
    turns = draws(choice(correct=(0, 3), question="Which?"), 100)
    assert {turn.answer for turn in turns} == {"A. red wine\nD. {name}"}
    assert len({turn.user for turn in turns}) == 5
    assert all("Which?" in turn.user and "A. red wine\nB. navy blue\n" in turn.user for turn in turns)
    one = write(choice(style="video_multiple_choice_multiple_correct", question="Which?"), SFT)
    assert one.user in {turn.user for turn in turns} and one.answer == "B. navy blue"


@pytest.mark.parametrize(
    ("options", "correct", "labelled", "problem", "reason"),
    [
        (("red", "blue", " red"), (0,), True, r"appear twice: \['red'\]", "bad_options"),
        (("red", "blue"), (), True, "no option is correct", "bad_options"),
        (("red", "blue"), (2,), True, r"\(2,\) are not distinct indices of 2 options", "bad_options"),
        (("red", "blue"), (-1,), True, "not distinct indices", "bad_options"),
        (("red", "blue"), (0, 0), True, "not distinct indices", "bad_options"),
        ((), (0,), True, "not distinct indices of 0", "bad_options"),
        (("", "blue"), (0,), False, "blank", "bad_options"),
        ([str(index) for index in range(27)], (0,), True, "27 options", "unwritable"),
    ],
)
def test_bad_options_raise(options, correct, labelled, problem, reason):
    with pytest.raises(ExampleError, match=f"style 'video_multiple_choice': .*{problem}") as caught:
        write(choice(options, correct, labelled), SFT)
    assert caught.value.reason == reason


def test_options_need_a_question():
    with pytest.raises(ExampleError, match="without a question"):
        write(choice(question=None), SFT)
