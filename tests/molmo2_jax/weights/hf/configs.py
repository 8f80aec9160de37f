"""config.json as published: of a released Molmo2, and of base models with the sizes of a small one."""

import copy

from molmo2_jax.models.config import LlmConfig, VitConfig

# Values of Molmo2-O-7B: a ViT of 27 layers of which 25 are in the files, and YaRN on listed layers.
RELEASED = {
    "architectures": ["Molmo2ForConditionalGeneration"],
    "model_type": "molmo2",
    "tie_word_embeddings": False,
    "image_start_token_id": 100278,
    "image_end_token_id": 100279,
    "image_patch_id": 100280,
    "image_col_id": 100281,
    "low_res_image_start_token_id": 100282,
    "image_low_res_id": 100284,
    "frame_start_token_id": 100285,
    "frame_end_token_id": 100286,
    "use_frame_special_tokens": False,
    "vit_config": {
        "model_type": "molmo2",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 72,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-06,
        "image_default_input_size": [378, 378],
        "image_patch_size": 14,
        "image_num_pos": 729,
        "attention_dropout": 0.0,
        "float32_attention": True,
    },
    "adapter_config": {
        "model_type": "molmo2",
        "vit_layers": [-3, -9],
        "pooling_attention_mask": True,
        "hidden_size": 1152,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 72,
        "hidden_act": "silu",
        "intermediate_size": 11008,
        "text_hidden_size": 4096,
    },
    "text_config": {
        "model_type": "molmo2_text",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "vocab_size": 100278,
        "additional_vocab_size": 128,
        "qkv_bias": False,
        "num_hidden_layers": 32,
        "intermediate_size": 11008,
        "hidden_act": "silu",
        "max_position_embeddings": 65536,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "attention_factor": 1.2079441541679836,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        },
        "rope_scaling_layers": [3, 7, 11, 15, 19, 23, 27, 31],
        "use_qk_norm": True,
        "qk_norm_type": "olmo",
        "layer_norm_eps": 1e-06,
        "norm_after": True,
        "tie_word_embeddings": False,
    },
}


def changed(config: dict, **changes) -> dict:
    """A copy with other values: `text_config__head_dim=7`. The value `...` removes a key."""
    config = copy.deepcopy(config)
    for key, value in changes.items():
        *above, last = key.split("__")
        section = config
        for name in above:
            section = section[name]
        if value is ...:
            del section[last]
        else:
            section[last] = value
    return config


def as_transformers_5_writes_it() -> dict:
    """The same model after `save_pretrained`: other names, 25 layers, RoPE in one section."""
    rope = RELEASED["text_config"]["rope_scaling"] | {"rope_theta": 500000.0}
    config = changed(RELEASED, vit_config=..., image_col_id=..., image_low_res_id=...)
    old = RELEASED["vit_config"]
    new = {"image_size": [378, 378], "patch_size": 14, "num_position_embeddings": 729, "num_channels": 3}
    kept = {key: value for key, value in old.items() if not key.startswith("image_")}
    config["vision_config"] = kept | new | {"num_hidden_layers": 25, "attention_bias": True}
    config["adapter_config"] |= {"vision_feature_layer": [24, 18], "attention_bias": True, "mlp_bias": False}
    del config["adapter_config"]["vit_layers"]
    text = config["text_config"]
    text |= {"rope_parameters": rope, "rms_norm_eps": text.pop("layer_norm_eps"), "attention_bias": False}
    for key in ("rope_theta", "rope_scaling", "qkv_bias", "use_qk_norm"):
        del text[key]
    return config


def llm_config(kind: str, c: LlmConfig) -> dict:
    """config.json of a base language model, as published with transformers 4."""
    return {
        "model_type": kind,
        "hidden_act": "silu",
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.mlp,
        "vocab_size": c.vocab,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": c.tied,
        "attention_bias": False,
        "max_position_embeddings": 32768,
        "layer_types": [("full" if l % 4 == 3 else "sliding") + "_attention" for l in range(c.layers)],
        "torch_dtype": "bfloat16",
    }


def vit_config(c: VitConfig) -> dict:
    """config.json of a SigLIP2 checkpoint, which leaves out most keys."""
    return {
        "model_type": "siglip",
        "text_config": {"model_type": "siglip_text_model", "hidden_size": 8, "num_hidden_layers": 1},
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": c.width,
            "intermediate_size": c.mlp,
            "num_hidden_layers": c.layers,
            "num_attention_heads": c.heads,
            "image_size": 384,
            "patch_size": 14,
        },
    }
