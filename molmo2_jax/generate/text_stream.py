"""Text from tokens that are generated a few at a time."""

from collections.abc import Iterable

from data_pipelines.text.tokenizer import Tokenizer

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what the tokenizer decodes a character to whose last bytes are missing


class TextStream:
    """Decodes tokens in batches and never returns half a character, whose bytes may be in several tokens.

    tokens       "Two "   f0 9f   a6 93   "!"
    add gives    "Two "   ""      "🦓"    "!"
    """

    def __init__(self, tok: Tokenizer):
        self._tok = tok
        self._pending: list[int] = []

    def add(self, tokens: Iterable[int], *, last: bool) -> str:
        """The text that these tokens complete. Joined, all pieces are the text of all tokens.

        Args:
          last: whether no more tokens follow; half a character is then returned as U+FFFD.
        """
        self._pending += tokens
        text = self._tok.decode(self._pending)
        if text.endswith(_INCOMPLETE) and not last:
            return ""
        self._pending = []
        return text
