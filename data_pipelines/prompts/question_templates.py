"""Templates that ask a question for a short answer, or for reasoning before it. {question} is the annotated question.

{question} Answer in a few words.    ->    What is he holding? Answer in a few words.
"""

SHORT_ANSWER = (
    "{question} Answer in a few words.",
    "{question}\nGive a short answer.",
    "{question} Reply with a word or a short phrase.",
    "{question}\nAnswer briefly.",
    "{question} Just the answer, please.",
    "Answer with as few words as you can: {question}",
    "Short answer only.\n{question}",
    "Question: {question}\nShort answer:",
    "{question}\nKeep the answer to a word or a phrase.",
    "Q: {question} A:",
    "{question} Don't explain, only answer.",
    "Briefly: {question}",
    "Reply to this question with a short phrase.\n{question}",
    "{question}\nNo full sentence is needed.",
    "Give a concise answer to the question.\nQuestion: {question}",
)

CHAIN_OF_THOUGHT = ("{question} Provide reasoning steps and then give the short answer.",)

ANSWER_AFTER_REASONS = "{explanation} Answer: {answer}"
