"""Molmo2's configuration for vLLM, which transformers up to 5.19 does not have. This file is written with an export.

Sections of config.json are objects: `config.vit_config.hidden_size`.
"""

from typing import ClassVar

from transformers import PreTrainedConfig


class Molmo2VitConfig(PreTrainedConfig):
    """The vision transformer, `vit_config`."""

    model_type = "molmo2"
    base_config_key = "vit_config"


class Molmo2AdapterConfig(PreTrainedConfig):
    """Pooling and projection, `adapter_config`."""

    model_type = "molmo2"
    base_config_key = "adapter_config"


class Molmo2TextConfig(PreTrainedConfig):
    """The language model, `text_config`."""

    model_type = "molmo2_text"
    base_config_key = "text_config"

    def __init__(self, max_position_embeddings=None, rope_theta=None, **values):
        self.max_position_embeddings = max_position_embeddings  # read when super().__init__ completes YaRN's settings
        super().__init__(rope_theta=rope_theta, **values)
        self.rope_theta = rope_theta  # super().__init__ moves it into YaRN's settings, but vLLM reads it here


class Molmo2Config(PreTrainedConfig):
    """A whole Molmo2."""

    model_type = "molmo2"
    sub_configs: ClassVar = {
        "vit_config": Molmo2VitConfig,
        "adapter_config": Molmo2AdapterConfig,
        "text_config": Molmo2TextConfig,
    }

    def __init__(self, vit_config=None, adapter_config=None, text_config=None, use_frame_special_tokens=True, **values):
        if (
            not use_frame_special_tokens
        ):  # vLLM always embeds frames between the frame tokens; here the processor writes others
            values["frame_start_token_id"] = values["image_start_token_id"]
            values["frame_end_token_id"] = values["image_end_token_id"]
        self.use_frame_special_tokens = use_frame_special_tokens
        self.vit_config = Molmo2VitConfig(**(vit_config or {}))
        self.adapter_config = Molmo2AdapterConfig(**(adapter_config or {}))
        self.text_config = Molmo2TextConfig(**(text_config or {}))
        super().__init__(**values)
