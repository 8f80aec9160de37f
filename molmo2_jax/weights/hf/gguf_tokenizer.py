"""The tokenizer inside a GGUF file as a tokenizer.json and a tokenizer_config.json.

A GGUF file lists the tokens of a byte-level BPE by id, the kind of each, the merges in order, and the name of the
pre-tokenizer, which splits text before merging. The file has only the name: this module defines what it means.
"""

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from molmo2_jax.weights.hf.config import HfError

# `tokenizer.ggml.pre` -> pre-tokenizers; no merge crosses a split. SmolLM2 splits off every digit, then as GPT-2:
# "the  12 cats" -> "the", "  ", "1", "2", " cats".
_PRE_TOKENIZERS = {
    "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
}
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # kinds of tokens (`tokenizer.ggml.token_type`)

# The only supported values.
_FIXED = {"model": "gpt2", "add_bos_token": False, "add_eos_token": False, "add_space_prefix": False}
_SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def build(metadata: Mapping[str, Any], where: str) -> tokenizers.Tokenizer:
    """The tokenizer that the metadata of a GGUF file describes.

    Raises:
      HfError: another kind of tokenizer, or an inconsistent one; `where` names the file.
    """
    for key, value in _FIXED.items():
        found = metadata.get(f"tokenizer.ggml.{key}", value)
        if found != value:
            raise HfError(f"{where}: tokenizer.ggml.{key} is {found!r}; only {value!r} is possible here")
    tokens, kinds, lines, name = (
        _required_entry(metadata, key, where) for key in ("tokens", "token_type", "merges", "pre")
    )
    if name not in _PRE_TOKENIZERS:
        raise HfError(f"{where}: tokenizer.ggml.pre is {name!r}; known are {sorted(_PRE_TOKENIZERS)}")
    if len(kinds) != len(tokens):
        raise HfError(f"{where}: {len(tokens)} tokens, but tokenizer.ggml.token_type has {len(kinds)}")
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise HfError(f"{where}: {len(tokens) - len(vocab)} tokens are in tokenizer.ggml.tokens twice")
    merges = [_parse_merge(line, vocab, where) for line in lines]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_PRE_TOKENIZERS[name])
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, kinds, strict=True):
        if kind not in (_NORMAL, _CONTROL, _USER_DEFINED):
            raise HfError(f"{where}: token {token!r} is of kind {kind}, which a byte-level BPE does not have")
        if kind != _NORMAL:
            tokenizer.add_tokens([AddedToken(token, special=kind == _CONTROL, normalized=False)])
    return tokenizer


def token_ids(metadata: Mapping[str, Any]) -> dict[str, int]:
    """{"bos_token_id": 1, ...}: the special tokens that the file names."""
    named = {f"{name}_id": f"tokenizer.ggml.{gguf_name}_token_id" for name, gguf_name in _SPECIAL_TOKENS.items()}
    return {name: metadata[key] for name, key in named.items() if key in metadata}


def tokenizer_config(metadata: Mapping[str, Any], max_positions: int) -> dict[str, Any]:
    """What transformers needs next to tokenizer.json: special tokens and chat template. `max_positions`: tokens."""
    tokens = metadata["tokenizer.ggml.tokens"]
    config = {name.removesuffix("_id"): tokens[i] for name, i in token_ids(metadata).items()}
    if "tokenizer.chat_template" in metadata:
        config["chat_template"] = metadata["tokenizer.chat_template"]
    return config | {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the class that uses tokenizer.json as it is
        "model_max_length": max_positions,
        "clean_up_tokenization_spaces": False,
    }


def _required_entry(metadata: Mapping[str, Any], key: str, where: str) -> Any:
    key = f"tokenizer.ggml.{key}"
    if key not in metadata:
        raise HfError(f"{where}: no {key}, which a tokenizer needs")
    return metadata[key]


def _parse_merge(line: str, vocab: Mapping[str, int], where: str) -> tuple[str, str]:
    parts = tuple(line.split(" "))
    if len(parts) != 2 or not {*parts, "".join(parts)} <= vocab.keys():
        raise HfError(f"{where}: merge {line!r} does not join two tokens to a third")
    return parts
