"""The parts of a multiple-choice prompt. choice_turns.py combines them.

{question}    Which color is it?
{options}     the options of the prompt, "A. red\nB. blue"
{instruct}    a sentence from one of the lists *_INSTRUCTIONS
{name}        the noun for the names of options: letter, number, numeral, identifier, label
"""

COMMON_MARKERS = ("{}. ", "{}) ", "{}: ", "({}) ")

# Rarer markers. None can be mistaken for part of the option after it, or of a number in the option.
ODD_MARKERS = (
    "{} - ",
    "{} | ",
    "{} ~ ",
    "{} = ",
    "{} -> ",
    "{} => ",
    "{} : ",
    "{} ",
    "{}, ",
    "{}; ",
    "{}> ",
    "{}/ ",
    "{}:",
    "{})",
    "({})",
    "[{}] ",
    "<{}> ",
    "{{{}}} ",
    "#{}: ",
)

BULLETS = ("-", "*", "+", "•", "·", "–", "▸", "■", "○", "◆")
INLINE_SEPARATORS = (";", " |||", "")  # each followed by a space; the empty one only between options with markers

NAMES = {  # kind -> the names of options, and the noun for them
    "upper": (tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "letter"),
    "lower": (tuple("abcdefghijklmnopqrstuvwxyz"), "letter"),
    "numbers": (tuple(str(n) for n in range(1, 21)), "number"),
    "roman": (("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x"), "numeral"),
}
OTHER_WORDS = ("identifier", "label")

STANDARD = "{question}\nOnly return the correct answer option.\n{options}"

NAME_INSTRUCTIONS = (  # for answers that are the name of the option
    "Answer with the {name} of the right option.",
    "Answer with the {name} alone.",
    "Reply with only the {name} of the correct choice",
    "Give just the {name}.",
    "Give the {name} of your choice and nothing more.",
    "State the {name} of the option that is correct.",
    "Which {name} is right? Write it and stop there.",
    "Output the {name} of the answer, without its text.",
    "Your reply must be one {name}.",
    "Respond with a single {name}",
    "Pick an option and write down its {name}.",
    "Choose one; return its {name} only.",
    "only the {name} please",
    "I just need the {name} of the best option.",
    "Tell me the {name} of the correct answer.",
    "Select the right option by its {name}.",
)

OPTION_INSTRUCTIONS = (  # for answers that are the complete option
    "Choose the correct option.",
    "Choose the best of these options.",
    "Pick the right answer from the options.",
    "Pick one of the options and repeat it.",
    "Select the option that answers the question.",
    "Answer with one of the given options.",
    "Answer by repeating the correct option",
    "Reply with the option that is right.",
    "Return the correct option in full.",
    "Write out the option that fits best.",
    "State which option is true.",
    "Respond with the best option and nothing else.",
    "Your answer must be one of the options.",
    "Decide for one option.",
)
NAMED_OPTION_INSTRUCTIONS = (  # more OPTION_INSTRUCTIONS, for options with names
    "Answer with the {name} and the text of the right option.",
    "Give the correct option together with its {name}.",
)

INSTRUCTION_LAYOUTS = (  # prompts with an instruction
    "{question}\n{options}\n{instruct}",
    "{question}\n{instruct}\n{options}",
    "{instruct}\n{question}\n{options}",
    "{question} {instruct}\n{options}",
    "{instruct} {question}\n{options}",
    "{question}\n\n{options}\n\n{instruct}",
    "{instruct}\n\n{question}\n\n{options}",
    "Question: {question}\nOptions:\n{options}\n{instruct}",
    "Question: {question}\n{instruct}\nOptions:\n{options}",
    "{instruct}\nQuestion: {question}\nOptions:\n{options}",
    "{instruct}\nQ: {question}\nChoices:\n{options}\nA:",
    "{question}\nOptions: {options}\n{instruct}",
    "{question}\nChoices:\n{options}\n{instruct}\nAnswer:",
    "Options:\n{options}\nQuestion: {question}\n{instruct}",
    "Here is a question: {question}\nHere are its options:\n{options}\n{instruct}",
)

NAME_LAYOUTS = (  # without an instruction; the answer is the name of the option
    "{question}\n{options}\nThe {name} of the right option is",
    "{question}\nAnswer with a {name} from these options:\n{options}",
    "{question}\n{options}\nCorrect {name}:",
    "Question: {question}\n{options}\nWhich {name} is correct?",
    "Which {name} answers this question: {question}\n{options}",
    "Find the {name} of the right answer.\n{question}\n{options}",
    "Return one {name} only.\nQuestion: {question}\nOptions:\n{options}",
    "{options}\n{question} Reply with the {name} from above.",
    "Q: {question}\nOptions:\n{options}\nThe {name}, nothing else:",
)

OPTION_LAYOUTS = (  # without an instruction; the answer is the complete option
    "{question}\n{options}",
    "{question}\n\n{options}",
    "{question} {options}",
    "{question}\nOptions:\n{options}",
    "{question}\nOptions: {options}",
    "{question}\nChoices:\n{options}",
    "Question: {question}\n{options}",
    "Question: {question}\nOptions:\n{options}\nAnswer:",
    "Q: {question}\n{options}\nA:",
    "Q: {question}\nOptions: {options}",
    "{question}\n{options}\nCorrect option:",
    "{question}\n{options}\nWhich one is it?",
    "{question} Is it one of these?\n{options}",
    "{options}\n\n{question}",
    "Out of the options below, which is the answer?\n{question}\n{options}",
    "Given these options:\n{options}\nanswer this question: {question}",
    "Solve this multiple-choice question.\n{question}\n{options}",
    "Here is a question with its options. What is the answer?\n{question}\n{options}",
    "Please answer: {question}\nChoose between:\n{options}",
)

SEVERAL_CORRECT = (  # if several options are correct
    "{question}\nChoose all correct options.\n{options}",
    "{question}\n{options}\nMore than one option may be right; list each of them.",
    "Select every option that answers the question.\nQuestion: {question}\nOptions:\n{options}",
    "{question}\nWhich of these are true? Return all that apply.\n{options}",
    "Question: {question}\n{options}\nAll correct options, one a line:",
)
