"""Chat turns of Qwen3 (ChatML) as token lists, without a system turn or think block.

A conversation of two questions. The message tree adds the EOS after each answer:

    <|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n            user_turn(tok, "Q1", first=True)
    A1                                                                 assistant_turn(tok, "A1")
    <|im_end|>                                                         EOS, from sequence/message_tree.py
    <|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n   user_turn(tok, "Q2", first=False)

`<|im_end|>` appears twice in a row there. The public reference trains on this, so released weights expect it
(olmo/preprocessing/data_formatter.py, format "qwen3"). Control tokens are inserted by id and texts go through `encode`,
so user text cannot end a turn.
"""

from data_pipelines.text.tokenizer import Tokenizer


def user_turn(tok: Tokenizer, text: str, first: bool) -> list[int]:
    """The tokens of a question, up to where its answer starts. `first`: it is the conversation's first question.

    For text "hi" of the Qwen3 tokenizer, with S and E the ids of <|im_start|> and <|im_end|>, and 198 the newline:

        first:  S user 198 hi E 198 S assistant 198
        later:  E 198 S user 198 hi E 198 S assistant 198
    """
    start, end, newline = tok.special("<|im_start|>"), tok.special("<|im_end|>"), tok.encode("\n")
    close_last = [] if first else [end, *newline]
    # Encoded as one string up to the next control token, as by a tokenizer that reads the whole turn as a string.
    question = [start, *tok.encode(f"user\n{text}"), end, *newline]
    return [*close_last, *question, start, *tok.encode("assistant\n")]


def assistant_turn(tok: Tokenizer, text: str) -> list[int]:
    """The tokens of an answer, without EOS."""
    return tok.encode(text)
