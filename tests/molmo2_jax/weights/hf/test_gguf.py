"""GGUF files as Hugging Face directories: output and errors. Values: tests/parity/test_gguf.py."""

import json
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from data_pipelines.text.tokenizer import Tokenizer
from molmo2_jax import sharding
from molmo2_jax.weights.hf import gguf
from molmo2_jax.weights.hf.config import HfError
from molmo2_jax.weights.hf.source import HfSource
from tests.molmo2_jax.weights.hf import small_gguf as small


def convert(path, folder, progress=lambda n: None):
    gguf.write_directory(path, folder, progress)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The small file, converted."""
    root = tmp_path_factory.mktemp("gguf")
    return convert(small.write(root / "small.gguf"), root / "out")


def refused(tmp_path, path, message):
    """Asserts an error that names the file and matches `message`, and that no output is left."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(HfError, match=message) as error:
        convert(path, tmp_path / "out")
    assert str(error.value).startswith(f"{path}: ")
    assert sorted(tmp_path.iterdir()) == before


# Output


def test_the_config_describes_the_decoder(folder):
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        source = HfSource(folder, "small", None)
    llm = source.model.llm
    assert (llm.width, llm.layers, llm.heads, llm.kv_heads, llm.head_dim, llm.mlp) == (64, 2, 4, 2, 8, 96)
    assert (llm.vocab, llm.rope_theta, llm.norm_eps, llm.tied) == (len(small.TOKENS), 50_000.0, 1e-5, True)
    assert (llm.qk_norm, llm.norm_after, llm.yarn) == ("none", False, None)
    norms = small.tensors()["blk.1.ffn_norm.weight"]
    np.testing.assert_array_equal(source.read("llm/blocks/mlp_norm/scale", 1), norms)


@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_has_its_name(tmp_path, tied):
    done = []
    tensors = small.tensors(tied)
    out = convert(small.write(tmp_path / "small.gguf", tensors=tensors), tmp_path / "out", done.append)
    found = safetensors.numpy.load_file(out / "model.safetensors")
    assert len(found) == len(tensors) and ("lm_head.weight" in found) == (not tied)
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] == tied
    assert sum(done) == sum(x.nbytes for x in tensors.values()) == sum(x.nbytes for x in found.values())
    for key, name in {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.layers.1.self_attn.v_proj.weight": "blk.1.attn_v.weight",
        "model.layers.0.mlp.gate_proj.weight": "blk.0.ffn_gate.weight",
    }.items():
        np.testing.assert_array_equal(found[key], tensors[name])


def test_rows_of_queries_and_keys_are_rotated_in_halves(folder):
    """RoPE's pairs, per head: 0 1 | 2 3 | 4 5 | 6 7 in a GGUF file, 0 4 | 1 5 | 2 6 | 3 7 for Hugging Face."""
    found = safetensors.numpy.load_file(folder / "model.safetensors")
    for key, name, heads in (("q_proj", "attn_q", 4), ("k_proj", "attn_k", 2)):
        order = [8 * head + row for head in range(heads) for row in (0, 2, 4, 6, 1, 3, 5, 7)]
        rows = small.tensors()[f"blk.0.{name}.weight"]
        np.testing.assert_array_equal(found[f"model.layers.0.self_attn.{key}.weight"], rows[order])


def test_the_tokenizer_loads(folder):
    tok = Tokenizer.load(str(folder), len(small.TOKENS))
    assert (tok.bos_id, tok.eos_id, tok.special("<|endoftext|>")) == (1, 2, 0)
    assert tok.pieces(tok.encode("the the  12<|im_end|>")) == ["t", "he", " the", " ", " ", "1", "2", *"<|im_end|>"]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == "{{ messages }}"
    assert (config["pad_token"], config["unk_token"]) == ("<|im_end|>", "<|endoftext|>")


# Errors


WITHOUT_Q = {name: x for name, x in small.tensors().items() if name != "blk.1.attn_q.weight"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "qwen2"}, "general.architecture is 'qwen2'; only 'llama'"),
        ({"kind": "Q5_1"}, r"tensor token_embd.weight is of type Q5_1; known are F32, .*\n(.*\n)+… and 5 more$"),
        ({"tensors": WITHOUT_Q}, "no tensor blk.1.attn_q.weight$"),
        ({"tensors": small.tensors() | {"rope_freqs.weight": np.ones(4, np.float32)}}, "rope_freqs.weight is unknown"),
        ({"tensors": small.tensors() | {"blk.2.attn_q.weight": np.ones(4, np.float32)}}, "blk.2.attn_q.weight is unk"),
        (
            {"tensors": small.tensors() | {"blk.0.ffn_up.weight": np.ones((64, 96), np.float32)}},
            r"tensor blk.0.ffn_up.weight has shape \(64, 96\), expected \(96, 64\)",
        ),
        (
            {"tensors": small.tensors() | {"blk.1.ffn_norm.weight": np.full(64, np.nan, np.float32)}},
            "tensor blk.1.ffn_norm.weight has values that are NaN or infinite",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else next(iter(value)),
)
def test_a_file_of_another_model_is_refused(tmp_path, changes, message):
    refused(tmp_path, small.write(tmp_path / "small.gguf", **changes), message)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"llama.rope.freq_base": None}, "has no llama.rope.freq_base"),
        ({"llama.rope.scaling.type": "yarn"}, "has unknown llama.rope.scaling.type = 'yarn'"),
        ({"llama.expert_count": 8}, "has unknown llama.expert_count = 8"),
        (
            {"llama.attention.head_count_kv": [2, 1]},
            r"has no single number in llama.attention.head_count_kv = \[2, 1\]",
        ),
        ({"llama.attention.key_length": 16}, "llama.attention.key_length is 16, but RoPE rotates 8"),
        ({"llama.vocab_size": 263}, r"token_embd.weight has shape \(262, 64\), expected \(263, 64\)"),
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.model is 'llama'; only 'gpt2'"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, r"tokenizer.ggml.pre is 'llama-bpe'; known are \['smollm'\]"),
        ({"tokenizer.ggml.add_bos_token": True}, "add_bos_token is True; only False"),
        ({"tokenizer.ggml.merges": None}, "no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["h e", "q x"]}, "merge 'q x' does not join two tokens to a third"),
        ({"tokenizer.ggml.tokens": [*small.TOKENS[:-1], "a"]}, "1 tokens are in tokenizer.ggml.tokens twice"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "262 tokens, but tokenizer.ggml.token_type has 2"),
        ({"tokenizer.ggml.token_type": [6] * 262}, r"token '<\|endoftext\|>' is of kind 6"),
        (
            {"tokenizer.ggml.tokens": [*small.TOKENS, "x1"], "tokenizer.ggml.token_type": [1] * 263},
            "263 tokens, but llama.vocab_size is 262",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_metadata_of_another_model_is_refused(tmp_path, metadata, message):
    refused(tmp_path, small.write(tmp_path / "small.gguf", small.METADATA | metadata), message)


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    whole = small.write(tmp_path / "small.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in [0, 3, 4, 20, 100, 1000, *range(5000, len(whole), 7919), len(whole) - 4, len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(tmp_path, path, "not a GGUF file, or one that was cut off")
    path.write_bytes(b"PK\x03\x04" + whole)
    refused(tmp_path, path, "not a GGUF file")


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path, tmp_path / "nothing.gguf", "no such file")


def test_an_existing_folder_is_kept(tmp_path):
    path = small.write(tmp_path / "small.gguf")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(HfError, match="out: exists; name a folder that does not exist yet"):
        convert(path, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_without_the_library_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = small.write(tmp_path / "small.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(HfError, match=r"pip install 'molmo2_jax\[gguf\]'"):
        convert(path, tmp_path / "out")
