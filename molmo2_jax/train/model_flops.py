"""Model FLOPs of a batch: what the MFU counts (PaLM appendix B, arXiv 2204.02311).

Counted: 6 FLOPs per weight and token for every weight matmul (forward and backward, frozen or not), and 12 H per
visible pair and head for attention. Not counted: padding, rematerialisation, masked tiles.
"""

from collections.abc import Mapping

import numpy as np

from molmo2_jax.models.config import Molmo2Config


def visible_pairs(rows: Mapping[str, np.ndarray]) -> int:
    """Number of (query, key) pairs that `mask.allowed` allows in the rows."""
    until, group = np.asarray(rows["visible_until"]), np.asarray(rows["image_group"])
    index = np.arange(until.shape[1])
    pairs = int(np.maximum(until - index, 0).sum())
    for row in group:  # within a group, earlier tokens attend to later ones, too
        sizes = np.bincount(row[row > 0]).astype(np.int64)
        pairs += int((sizes * (sizes - 1) // 2).sum())
    return pairs


def model_flops(c: Molmo2Config, rows: Mapping[str, np.ndarray]) -> float:
    """FLOPs of forward and backward pass on the tokens, crops and pairs in use."""
    return sum(flops_by_part(c, rows).values())


def flops_by_part(c: Molmo2Config, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`model_flops` of the model's parts: "LLM matmuls", "attention", "loss" (the head), "ViT" and "connector"."""
    llm, vit, connector = c.llm, c.vit, c.connector
    inner = llm.heads * llm.head_dim
    block = llm.width * (2 * inner + 2 * llm.kv_heads * llm.head_dim + 3 * llm.mlp)
    tokens = np.count_nonzero(rows["visible_until"])

    pooling = rows["pooling"].reshape(-1, rows["pooling"].shape[-1])
    patches = np.count_nonzero(pooling >= 0)
    visual = np.count_nonzero((pooling >= 0).any(-1))
    crops = sum(np.unique(row[row >= 0] // vit.patches).size for row in rows["pooling"])  # every crop in use is pooled
    vit_block = vit.width * (4 * vit.width + 2 * vit.mlp)
    per_crop = vit.patches * (vit.width * vit.patch_pixels + vit.layers * vit_block)

    features, width = vit.width * len(vit.feature_layers), connector.heads * connector.head_dim
    projector = width * (features + width + 2 * connector.mlp) + connector.mlp * llm.width
    return {
        "LLM matmuls": 6.0 * block * llm.layers * tokens,
        "attention": 12.0 * llm.layers * inner * visible_pairs(rows),
        "loss": 6.0 * llm.vocab * llm.width * np.count_nonzero(rows["loss_weights"]),
        "ViT": 6.0 * per_crop * crops + 12.0 * vit.layers * vit.width * vit.patches**2 * crops,
        "connector": 6.0 * 2 * features * width * patches + 6.0 * projector * visual,
    }
