"""Text from tokens that come a few at a time."""

from collections.abc import Iterable

from molmo2_jax.text.tokenizer import Tokenizer

_HALF = "\N{REPLACEMENT CHARACTER}"  # what the tokenizer shows for a character whose last bytes are still to come


class TextStream:
    """Decodes tokens in batches and never shows half a character, whose bytes may be spread over several tokens.

    tokens       "Two "   f0 9f   a6 93   "!"
    add gives    "Two "   ""      "🦓"    "!"
    """

    def __init__(self, tok: Tokenizer):
        self._tok = tok
        self._waiting: list[int] = []

    def add(self, tokens: Iterable[int], *, last: bool) -> str:
        """The text that is whole with these tokens. All pieces together are the text of all tokens.

        Args:
          last: no more tokens come, so that nothing is worth waiting for: half a character is shown as U+FFFD.
        """
        self._waiting += tokens
        text = self._tok.decode(self._waiting)
        if text.endswith(_HALF) and not last:
            return ""
        self._waiting = []
        return text
