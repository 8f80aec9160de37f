"""Chat turns of Qwen3 (ChatML) as token lists: no system turn, no think block.

A conversation of two questions, as the tree layout joins these turns (it adds the EOS after each answer itself):

    <|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n            user_turn(tok, "Q1", first=True)
    A1                                                                 assistant_turn(tok, "A1")
    <|im_end|>                                                         EOS, by the layout
    <|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n   user_turn(tok, "Q2", first=False)

`<|im_end|>` stands twice in a row there: the reference trains on it, so released weights expect it (public reference
olmo/preprocessing/data_formatter.py, format "qwen3"). Control tokens go in by id and texts through `encode`, so what a
user writes can end no turn.
"""

from molmo2_jax.text.tokenizer import Tokenizer


def user_turn(tok: Tokenizer, text: str, first: bool) -> list[int]:
    """A question and the opening of its answer; `first` in the conversation or after an answer.

    For text "hi" of the Qwen3 tokenizer, S and E the ids of <|im_start|> and <|im_end|>, 198 the line end:

        first:  S user 198 hi E 198 S assistant 198
        later:  E 198 S user 198 hi E 198 S assistant 198
    """
    start, end, line_end = tok.special("<|im_start|>"), tok.special("<|im_end|>"), tok.encode("\n")
    close_last = [] if first else [end, *line_end]
    # Encoded in one go up to the next control token, as a tokenizer would that reads the whole turn as a string.
    question = [start, *tok.encode(f"user\n{text}"), end, *line_end]
    return [*close_last, *question, start, *tok.encode("assistant\n")]


def assistant_turn(tok: Tokenizer, text: str) -> list[int]:
    """The tokens of an answer, without EOS."""
    return tok.encode(text)
