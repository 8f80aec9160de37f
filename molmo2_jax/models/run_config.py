"""How a model is computed: dtype, attention, what is saved for the backward pass, dropout."""

import dataclasses
from typing import Annotated

from data_pipelines.config import OneOf, at_least, between
from molmo2_jax.models.layers import REMAT
from molmo2_jax.ops.attention.attention import IMPLEMENTATIONS, STRATEGIES
from molmo2_jax.ops.attention.token_order import TOKEN_ORDERS

DTYPES = ("bfloat16", "float32")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The model section of a training config."""

    preset: str  # a key of models.config.PRESETS, or "hf:…" for the architecture of a directory (weights/init_from.py)
    dtype: Annotated[str, OneOf(DTYPES)]  # of the compute, "bfloat16" on TPUs; parameters are float32
    attention: Annotated[str, OneOf(IMPLEMENTATIONS)]
    context: Annotated[str, OneOf(STRATEGIES)]  # how attention crosses the mesh axis `context`
    token_order: Annotated[str, OneOf(TOKEN_ORDERS)]  # which tokens of a row each device along `context` holds
    remat: Annotated[str, OneOf(REMAT)]  # what a layer of the LLM saves for the backward pass (models/layers.py)
    vit_remat: Annotated[str, OneOf(REMAT)]  # the same for the ViT
    loss_chunk: Annotated[int, at_least(1)]  # positions per device whose logits exist at a time
    residual_dropout: Annotated[float, between(0, 0.99)]  # on attention and mlp outputs, at tokens without loss
    response_dropout: Annotated[float, between(0, 0.99)]  # the same, at tokens with loss
