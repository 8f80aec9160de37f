"""Rotary position embedding in float32, half rotation (GPT-NeoX layout), with YaRN frequencies.

x = [a | b], halves of a head vector:   rotate(x) = [a cos - b sin | b cos + a sin]
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071) as OLMo3 uses it. `attention_factor` multiplies both cos and sin."""

    factor: float
    attention_factor: float
    beta_fast: float
    beta_slow: float
    original_positions: int


def inverse_frequencies(head_dim: int, theta: float, yarn: Yarn | None = None) -> np.ndarray:
    """float32[H/2]: radians per position of each pair.

    YaRN divides low frequencies by `factor` and keeps high ones, with a linear ramp between the dimensions that turn
    beta_fast and beta_slow times in the original context (public reference, llm.py:1135-1208).
    """
    plain = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if yarn is None:
        return plain.astype(np.float32)

    def dimension(turns: float) -> float:
        return head_dim * math.log(yarn.original_positions / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(yarn.beta_fast)), 0)
    high = min(math.ceil(dimension(yarn.beta_slow)), head_dim - 1)
    ramp = np.clip((np.arange(head_dim // 2) - low) / max(high - low, 1e-3), 0, 1)
    return (plain * (1 - ramp) + plain / yarn.factor * ramp).astype(np.float32)


def rope_table(positions_BS: jax.Array, frequencies: np.ndarray, scale: float) -> jax.Array:
    """float32[B, S, 2, H/2]: scaled cos and sin of each position's angles."""
    angles_BSF = positions_BS[..., None].astype(jnp.float32) * frequencies
    return jnp.stack([jnp.cos(angles_BSF), jnp.sin(angles_BSF)], axis=-2) * scale


def rotate(x_BSNH: jax.Array, table_BS2F: jax.Array) -> jax.Array:
    """Rotates in float32 and casts back."""
    cos, sin = (table_BS2F[:, :, None, i] for i in (0, 1))
    a, b = jnp.split(x_BSNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BSNH.dtype)
