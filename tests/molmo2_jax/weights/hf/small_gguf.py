"""A small GGUF file of every structural feature: grouped queries, heads * head_dim != width, one or two tables."""

import gguf
import numpy as np

from data_pipelines.text import qwen_tokenizer

LAYERS, WIDTH, MLP, HEADS, KV_HEADS, HEAD_DIM = 2, 64, 96, 4, 2, 8  # 32, the block size of Q8_0, divides every row

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he"]
TOKENS = CONTROL + list(qwen_tokenizer.byte_letters().values()) + [merge.replace(" ", "") for merge in MERGES]

SIZES = {
    "llama.vocab_size": len(TOKENS),
    "llama.context_length": 512,
    "llama.embedding_length": WIDTH,
    "llama.block_count": LAYERS,
    "llama.feed_forward_length": MLP,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.key_length": HEAD_DIM,
    "llama.attention.value_length": HEAD_DIM,
    "llama.rope.dimension_count": HEAD_DIM,
    "llama.rope.freq_base": 50_000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
TOKENIZER = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": TOKENS,
    "tokenizer.ggml.token_type": [3] * len(CONTROL) + [1] * (len(TOKENS) - len(CONTROL)),
    "tokenizer.ggml.merges": MERGES,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.chat_template": "{{ messages }}",
}
METADATA = SIZES | TOKENIZER


def shapes(tied=True):
    """{GGUF's name: shape}."""
    heads, kv_heads = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    layer = {
        "attn_norm": (WIDTH,),
        "attn_q": (heads, WIDTH),
        "attn_k": (kv_heads, WIDTH),
        "attn_v": (kv_heads, WIDTH),
        "attn_output": (WIDTH, heads),
        "ffn_norm": (WIDTH,),
        "ffn_gate": (MLP, WIDTH),
        "ffn_up": (MLP, WIDTH),
        "ffn_down": (WIDTH, MLP),
    }
    out = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    out |= {f"blk.{l}.{name}.weight": shape for l in range(LAYERS) for name, shape in layer.items()}
    return out if tied else out | {"output.weight": (len(TOKENS), WIDTH)}


def tensors(tied=True):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes(tied).items()}


def write(path, metadata=METADATA, tensors=None, kind="F32", architecture="llama"):
    """A file at `path`; matrices are stored as `kind`, vectors in float32. A value of None leaves a key out."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        if isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](key, value)
    for name, values in (tensors or globals()["tensors"]()).items():
        stored = gguf.GGMLQuantizationType["F32" if values.ndim == 1 else kind]
        writer.add_tensor(name, gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
