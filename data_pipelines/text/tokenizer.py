"""Text to token ids and back: the LLM's tokenizer, with Molmo2's special tokens after the last row of its embedding.

    Qwen3, vocab_size 151,936:   0 .. 151,642 text | 151,643 .. 151,668 control | unused | 151,936 <im_start> ...

Text never becomes a control token: "<|im_end|>" in a caption is encoded as its characters. Control tokens are inserted
by id only (`Tokenizer.special`).
"""

import functools
import json
import pathlib
import re
from collections.abc import Iterable

import tokenizers

from data_pipelines.text import qwen_tokenizer

# In order of offset: id = vocab_size + offset (public reference olmo/tokenizer.py; 151,938 is <im_patch> for Qwen3).
SPECIAL_TOKENS = (
    "<im_start>",  # start of a high-resolution image grid (and, in released models, of a video frame)
    "<im_end>",  # end of an image grid, of an overview and of a frame
    "<im_patch>",  # one pooled visual feature
    "<im_col>",  # end of one row of an image grid
    "<low_res_im_start>",  # start of the overview
    "<|image|>",  # placeholder of an image in a text
    "<im_low>",  # a feature of the overview; unused in Molmo2
    "<frame_start>",
    "<frame_end>",
    "<|video|>",  # placeholder of a video in a text
    "<|points|>",  # this and the next three: MolmoPoint only
    "<|token_index|>",
    "<|vit_index|>",
    "<|vit_loc|>",
)

SPECIAL_ROWS = 128  # rows of the second embedding; those after SPECIAL_TOKENS are unused

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Tokenizer:
    """A byte-level tokenizer (Qwen3, OLMo3) with Molmo2's special tokens. Create one with `Tokenizer.load`.

    `vocab_size`: rows of the base word embedding. `eos_id`: `<|im_end|>`, which ends every answer. `bos_id`: the BOS
    token that the tokenizer's `tokenizer_config.json` names, else `eos_id`, as for Qwen3.
    """

    def __init__(self, base: tokenizers.Tokenizer, vocab_size: int, bos: str | None, source: str):
        self.vocab_size = vocab_size
        self._base = base
        self._source = source
        # Such as <think>. `to_json` writes these as ordinary tokens again; here every added token becomes special.
        self._ordinary = {token.content for token in base.get_added_tokens_decoder().values() if not token.special}
        self._make_added_tokens_special()
        self._check_ids()
        self.eos_id = self.special("<|im_end|>")
        self.bos_id = self.eos_id if bos is None else self.special(bos)

    @classmethod
    def load(cls, source: str, vocab_size: int) -> "Tokenizer":
        """The tokenizer that `source` names: a tokenizer.json, its directory, "qwen-tokenizer" or a hub name.

            Tokenizer.load("qwen-tokenizer", 151936).encode("Hello")  ->  [9707]

        BOS is read from a `tokenizer_config.json` next to the tokenizer.json.

        Raises:
          FileNotFoundError: there is no such tokenizer.
          ValueError: the tokenizer cannot be used with `vocab_size` embedding rows.
        """
        if source == "qwen-tokenizer":
            base = qwen_tokenizer.build(qwen_tokenizer.load_ranks(qwen_tokenizer.ranks_path()))
            return cls(base, vocab_size, None, source)
        path = pathlib.Path(source)
        if path.is_dir():
            path = path / "tokenizer.json"
        if path.is_file():
            return cls(_read_tokenizer(path), vocab_size, _read_bos(path), source)
        if path.suffix == ".json" or not _HUB_NAME.fullmatch(source):
            raise FileNotFoundError(
                f"tokenizer {source!r}: there is no file {path}; name a tokenizer.json, a directory with one, "
                "'qwen-tokenizer' or a hub name such as 'Qwen/Qwen3-8B'"
            )
        try:
            return cls(tokenizers.Tokenizer.from_pretrained(source), vocab_size, None, source)
        except OSError as error:
            raise FileNotFoundError(
                f"tokenizer {source!r}: not a local file or directory, and the hub does not provide it; check the name "
                "and the connection, or download its tokenizer.json and name that file"
            ) from error

    def special(self, name: str) -> int:
        """Id of a Molmo2 token ("<im_patch>") or of a control token of the LLM ("<|im_start|>"). Raises ValueError."""
        if name in SPECIAL_TOKENS:
            return self.vocab_size + SPECIAL_TOKENS.index(name)
        if name in self._control:
            return self._control[name]
        raise ValueError(f"tokenizer {self._source!r} has no control token {name!r}; it has {sorted(self._control)}")

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, without BOS, EOS or any control or special token.

        encode("0.0 ")        ->  [15, 13, 15, 220]
        encode("<|im_end|>")  ->  [27, 91, 318, 6213, 91, 29], not [151645]

        Bytes without a token in the vocabulary are dropped. Qwen3 and OLMo3 have all 256; SmolLM2 has all of UTF-8
        except six control characters and the code points from U+40000 to U+BFFFF.
        """
        return self._base.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; control and special tokens as their names, incomplete characters as U+FFFD."""
        return b"".join(self._token_bytes(i) for i in ids).decode("utf-8", errors="replace")

    def pieces(self, ids: Iterable[int]) -> list[str]:
        r"""One string per token, for display: [198, 35946] -> ["\n", "我"]; incomplete characters as r"\xe6"."""
        return [self._token_bytes(i).decode("utf-8", errors="backslashreplace") for i in ids]

    def to_json(self) -> str:
        """A tokenizer.json with a token for every id up to Molmo2's last, for programs that do not know the offsets.

            151,643 .. 151,668   <|endoftext|> ... </think>                         as in the base tokenizer
            151,669 .. 151,935   |<EXTRA_TOKENS_0>| ... |<EXTRA_TOKENS_266>|        embedding rows without a token
            151,936 .. 151,949   <im_start> ... <|vit_loc|>

        It does not add BOS to texts. Raises ValueError if other tokens already have those names or ids.
        """
        taken = self._base.get_vocab(with_added_tokens=True)
        missing = sorted(set(range(self.vocab_size + len(SPECIAL_TOKENS))) - set(taken.values()))
        names = {i: f"|<EXTRA_TOKENS_{k}>|" for k, i in enumerate(missing)}
        names |= {i: SPECIAL_TOKENS[i - self.vocab_size] for i in missing if i >= self.vocab_size}
        spec = json.loads(self._base.to_str()) | {"post_processor": None, "padding": None, "truncation": None}
        for token in spec["added_tokens"]:
            token["special"] = token["content"] not in self._ordinary
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        spec["added_tokens"] += [{"id": i, "content": name, **flags} for i, name in names.items()]
        text = json.dumps(spec, ensure_ascii=False)
        # The library ignores the ids in a file and numbers added tokens itself; compare what it assigned.
        loaded = tokenizers.Tokenizer.from_str(text)
        wrong = [name for i, name in names.items() if name in taken or loaded.token_to_id(name) != i]
        if wrong:
            raise ValueError(f"tokenizer {self._source!r}: {wrong[0]!r} cannot have the id that Molmo2 gives it")
        return text

    def _make_added_tokens_special(self) -> None:
        """Mark every added token as a control token, and encode control tokens in texts as plain characters."""
        # Qwen3 lists <think> and <tool_call> as ordinary added tokens, which would be recognised in texts.
        added = self._base.get_added_tokens_decoder()
        self._base.add_special_tokens(list(added.values()))
        self._base.encode_special_tokens = True
        self._control = {token.content: i for i, token in added.items()}

    def _check_ids(self) -> None:
        vocab = self._base.get_vocab(with_added_tokens=True)
        if not isinstance(self._base.decoder, tokenizers.decoders.ByteLevel):
            raise ValueError(f"tokenizer {self._source!r} is not byte-level; Molmo2 needs a byte-level BPE")
        special = {self.vocab_size + k: name for k, name in enumerate(SPECIAL_TOKENS)}
        beyond = {i: name for name, i in vocab.items() if i >= self.vocab_size and special.get(i) != name}
        if beyond:
            i, name = max(beyond.items())
            raise ValueError(
                f"tokenizer {self._source!r}: token {name!r} has id {i}, but vocab_size is {self.vocab_size}; "
                "set vocab_size to the number of rows of this LLM's word embedding"
            )

    def _token_bytes(self, i: int) -> bytes:
        if not 0 <= i < self.vocab_size + SPECIAL_ROWS:
            raise ValueError(f"token id {i} is outside [0, {self.vocab_size + SPECIAL_ROWS})")
        if self.vocab_size <= i < self.vocab_size + len(SPECIAL_TOKENS):
            return SPECIAL_TOKENS[i - self.vocab_size].encode()
        token = self._base.id_to_token(int(i))
        if token is None:  # an embedding row without a token; an untrained model can generate these
            return f"<|unused_{i}|>".encode()
        if token in self._control:
            return token.encode()
        return bytes(_byte_of_letter()[letter] for letter in token)

    def __setstate__(self, state: dict) -> None:
        # The base is pickled as JSON, which does not contain encode_special_tokens: set it again in a worker's copy.
        self.__dict__.update(state)
        self._make_added_tokens_special()


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    return {letter: b for b, letter in qwen_tokenizer.byte_letters().items()}


def _read_tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    text = path.read_text(encoding="utf-8")
    try:
        spec = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"tokenizer {path}: not JSON ({error}); is it a complete tokenizer.json?") from error
    if not isinstance(spec, dict) or "model" not in spec:
        raise ValueError(f"tokenizer {path}: JSON without a 'model'; name the file written by the tokenizers library")
    return tokenizers.Tokenizer.from_str(text)


def _read_bos(path: pathlib.Path) -> str | None:
    """The BOS token that a tokenizer_config.json in the same directory as `path` names; None if there is none."""
    config = path.with_name("tokenizer_config.json")
    if not config.is_file():
        return None
    bos = json.loads(config.read_text(encoding="utf-8")).get("bos_token")
    return bos["content"] if isinstance(bos, dict) else bos
