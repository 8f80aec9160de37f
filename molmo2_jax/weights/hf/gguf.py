"""GGUF files of Llama-style language models as Hugging Face directories, their weights dequantised to float32.

    FILE.gguf   ->   DIR/  config.json  model.safetensors  tokenizer.json  tokenizer_config.json

The tensors are those of Hugging Face by other names, except for the order of the rows of q and k: RoPE rotates pairs of
adjacent rows in a GGUF file, but in a Hugging Face directory a row of a head's first half with one of its second half.

    rows of a head of 6      GGUF 0 1 2 3 4 5     ->     Hugging Face 0 2 4 1 3 5

Sources: the GGUF specification; llama.cpp's names for the architecture "llama". The package `gguf` reads and
dequantises the file.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from molmo2_jax.weights.hf import gguf_tokenizer
from molmo2_jax.weights.hf.config import HfError
from molmo2_jax.weights.hf.tensor_files import atomic_directory, write_tensors

# Metadata "llama.KEY" -> key of config.json. Any other key may change what the model computes, and is an error.
_CONFIG = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_HEAD_DIMS = ("attention.key_length", "attention.value_length")  # optional; equal to the head size


class _TensorKind(NamedTuple):
    """One kind of tensor; `{l}` is its layer, a letter of `shape` a size of `_dim_sizes`."""

    name: str
    key: str
    shape: str
    rotated: bool = False


_KINDS = (
    _TensorKind("token_embd.weight", "model.embed_tokens.weight", "VD"),
    _TensorKind("blk.{l}.attn_norm.weight", "model.layers.{l}.input_layernorm.weight", "D"),
    _TensorKind("blk.{l}.attn_q.weight", "model.layers.{l}.self_attn.q_proj.weight", "QD", rotated=True),
    _TensorKind("blk.{l}.attn_k.weight", "model.layers.{l}.self_attn.k_proj.weight", "KD", rotated=True),
    _TensorKind("blk.{l}.attn_v.weight", "model.layers.{l}.self_attn.v_proj.weight", "KD"),
    _TensorKind("blk.{l}.attn_output.weight", "model.layers.{l}.self_attn.o_proj.weight", "DQ"),
    _TensorKind("blk.{l}.ffn_norm.weight", "model.layers.{l}.post_attention_layernorm.weight", "D"),
    _TensorKind("blk.{l}.ffn_gate.weight", "model.layers.{l}.mlp.gate_proj.weight", "FD"),
    _TensorKind("blk.{l}.ffn_up.weight", "model.layers.{l}.mlp.up_proj.weight", "FD"),
    _TensorKind("blk.{l}.ffn_down.weight", "model.layers.{l}.mlp.down_proj.weight", "DF"),
    _TensorKind("output_norm.weight", "model.norm.weight", "D"),
)
_HEAD = _TensorKind("output.weight", "lm_head.weight", "VD")  # absent if the embeddings are tied

_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")


class GgufModel:
    """A GGUF file: `config` is its config.json; `arrays` has its tensors by their Hugging Face names, in float32."""

    def __init__(self, path: pathlib.Path):
        """Reads the metadata and checks that every tensor is known and that none is missing.

        Raises:
          HfError: a damaged file, another architecture, or an unsupported value or type of tensor.
        """
        self.path = path
        reader = _open_gguf(path)
        self.metadata = {name: field.contents() for name, field in reader.fields.items()}
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.config = _hf_config(self.metadata, str(path)) | {"tie_word_embeddings": _HEAD.name not in self._tensors}
        sizes, layers = _dim_sizes(self.config), range(self.config["num_hidden_layers"])
        kinds = _KINDS if self.config["tie_word_embeddings"] else (*_KINDS, _HEAD)
        self._kinds = {key: kind for kind in kinds for key in _for_each_layer(kind.key, layers)}
        self._names = dict(
            zip(self._kinds, (n for kind in kinds for n in _for_each_layer(kind.name, layers)), strict=True)
        )
        shapes = {key: tuple(sizes[letter] for letter in kind.shape) for key, kind in self._kinds.items()}
        self._check_tensors({self._names[key]: shape for key, shape in shapes.items()})
        self.arrays = {key: jax.ShapeDtypeStruct(shape, np.dtype(np.float32)) for key, shape in shapes.items()}

    def read(self, key: str) -> np.ndarray:
        """float32 values of a tensor. Raises HfError if one of them is not finite."""
        tensor = self._tensors[self._names[key]]
        values = _import_gguf().dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise HfError(f"{self.path}: tensor {tensor.name} has values that are NaN or infinite")
        return _pairs_to_halves(values, self.config["head_dim"]) if self._kinds[key].rotated else values

    def _check_tensors(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raises HfError, naming every tensor that is missing, unknown, of another shape or of an unknown type."""
        problems = [f"no tensor {name}" for name in expected if name not in self._tensors]
        for name, tensor in self._tensors.items():
            shape = tuple(tensor.shape.tolist()[::-1])
            if name not in expected:
                problems.append(f"tensor {name} is unknown to a Llama of {self.config['num_hidden_layers']} layers")
            elif shape != expected[name]:
                problems.append(f"tensor {name} has shape {shape}, expected {expected[name]}")
            if tensor.tensor_type.name not in _TYPES:
                problems.append(f"tensor {name} is of type {tensor.tensor_type.name}; known are {', '.join(_TYPES)}")
        if problems:
            more = f"\n… and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise HfError("\n".join(f"{self.path}: {problem}" for problem in problems[:10]) + more)


def write_directory(path: pathlib.Path, folder: pathlib.Path, progress: Callable[[int], None]) -> None:
    """Writes the model and tokenizer of a GGUF file as the Hugging Face directory `folder`, whole or not at all.

    Args:
      folder: must not exist.
      progress: called with the bytes of each converted tensor.

    Raises:
      HfError: the file cannot be used (see GgufModel and gguf_tokenizer.build), or `folder` exists.
    """
    with atomic_directory(folder) as unfinished:
        model = GgufModel(path)
        tokenizer = gguf_tokenizer.build(model.metadata, str(path))
        if tokenizer.get_vocab_size() != model.config["vocab_size"]:
            raise HfError(
                f"{path}: {tokenizer.get_vocab_size()} tokens, but llama.vocab_size is {model.config['vocab_size']}"
            )
        tokenizer_config = gguf_tokenizer.tokenizer_config(model.metadata, model.config["max_position_embeddings"])
        for name, content in {"config.json": model.config, "tokenizer_config.json": tokenizer_config}.items():
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (unfinished / name).write_text(text + "\n", encoding="utf-8")
        tokenizer.save(str(unfinished / "tokenizer.json"))
        write_tensors(unfinished, model.arrays, model.read, progress)


def _hf_config(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    if metadata.get("general.architecture") != "llama":
        found = metadata.get("general.architecture")
        raise HfError(f"{where}: general.architecture is {found!r}; only 'llama' can be read")
    values = {key.removeprefix("llama."): value for key, value in metadata.items() if key.startswith("llama.")}
    missing = [f"llama.{key}" for key in _CONFIG if key not in values]
    unknown = [f"llama.{key} = {value!r}" for key, value in values.items() if key not in (*_CONFIG, *_HEAD_DIMS)]
    not_numbers = [f"llama.{key} = {value!r}" for key, value in values.items() if not isinstance(value, int | float)]
    for problem, keys in (("has no", missing), ("has unknown", unknown), ("has no single number in", not_numbers)):
        if keys:
            raise HfError(f"{where}: {problem} {', '.join(keys)}")
    config = {hf_key: _shortest_decimal(values[key]) for key, hf_key in _CONFIG.items()}
    for key in _HEAD_DIMS:
        if key in values and values[key] != config["head_dim"]:
            raise HfError(f"{where}: llama.{key} is {values[key]}, but RoPE rotates {config['head_dim']}")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_scaling": None,
        **config,
        **gguf_tokenizer.token_ids(metadata),
    }


def _shortest_decimal(value: float) -> float:
    """The shortest decimal of a float32, which is what GGUF stores: 9.999999747378752e-06 -> 1e-05."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _dim_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    return {
        "V": config["vocab_size"],
        "D": config["hidden_size"],
        "F": config["intermediate_size"],
        "Q": config["num_attention_heads"] * config["head_dim"],
        "K": config["num_key_value_heads"] * config["head_dim"],
    }


def _for_each_layer(name: str, layers: range) -> list[str]:
    return [name.replace("{l}", str(layer)) for layer in layers] if "{l}" in name else [name]


def _pairs_to_halves(rows_QD: np.ndarray, head_dim: int) -> np.ndarray:
    """Reorders the rows of every head so that RoPE pairs a row of the first half with one of the second."""
    pairs_NF2D = rows_QD.reshape(-1, head_dim // 2, 2, rows_QD.shape[-1])
    return pairs_NF2D.swapaxes(1, 2).reshape(rows_QD.shape)


def _import_gguf() -> ModuleType:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise HfError("reading a GGUF file needs the package gguf: pip install 'molmo2_jax[gguf]'") from error
    return gguf


def _open_gguf(path: pathlib.Path):
    """A reader of the file, with its tensors mapped into memory."""
    library = _import_gguf()
    if not path.is_file():
        raise HfError(f"{path}: no such file")
    try:
        return library.GGUFReader(path)
    except (IndexError, KeyError, ValueError) as error:  # what the reader raises where bytes are missing
        raise HfError(f"{path}: not a GGUF file, or one that was cut off while it was copied ({error})") from error
