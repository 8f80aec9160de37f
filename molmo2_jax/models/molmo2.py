"""Molmo2: a vision transformer whose pooled features are added to the `<im_patch>` embeddings of a decoder."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from molmo2_jax import sharding
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.connector import Connector, add_visual_tokens
from molmo2_jax.models.llm import Dropout, Llm
from molmo2_jax.models.run_config import RunConfig
from molmo2_jax.models.vit import Vit
from molmo2_jax.ops.attention import mask
from molmo2_jax.ops.attention.attention import attention
from molmo2_jax.ops.loss import LossSums, loss_sums

Row = Mapping[str, jax.Array]  # the arrays of packing/schema.py, with a leading batch dimension


class Molmo2(nnx.Module):
    """All parameters are float32; compute runs in the dtype of RunConfig."""

    def __init__(self, c: Molmo2Config, rngs: nnx.Rngs):
        self.config = c
        self.vit = Vit(c.vit, rngs)
        self.connector = Connector(c, rngs)
        self.llm = Llm(c.llm, rngs)

    def embed(self, row: Row, run: RunConfig) -> jax.Array:
        """[B, S, D]: token embeddings plus visual tokens at their slots. A batch without visual tokens skips vision."""
        dtype = jnp.dtype(run.dtype)
        x_BSD = self.llm.embed(row["tokens"], dtype)
        if row["crops"].shape[1] == 0:  # a config without vision
            return x_BSD

        def add_vision(x_BSD):
            features_BCPD = self.vit(row["crops"], dtype, remat=run.vit_remat, attention=run.attention)
            visual_BGD = self.connector(features_BCPD, row["pooling"])
            return add_visual_tokens(x_BSD, visual_BGD, row["visual_slots"])

        # One decision for all devices: the branch has collectives.
        any_visual = jnp.any(row["visual_slots"] < row["tokens"].shape[1])
        return jax.lax.cond(any_visual, add_vision, lambda x_BSD: x_BSD, x_BSD)

    def hidden(self, x_BSD: jax.Array, row: Row, run: RunConfig, dropout_key: jax.Array | None = None) -> jax.Array:
        """Final hidden states [B, S, D] of embedded rows, with dropout if there is a key."""
        vis = mask.row_visibility(row["visible_until"], row["image_group"], run.token_order)

        def attend(q, k, v, state):
            return attention(q, k, v, vis, implementation=run.attention, context=run.context), state

        drop = None
        if dropout_key is not None and (run.residual_dropout or run.response_dropout):
            rate_BS = jnp.where(row["loss_weights"] > 0, run.response_dropout, run.residual_dropout)
            drop = Dropout(dropout_key, rate_BS)
        return self.llm(x_BSD, row["positions"], attend, dropout_=drop, remat=run.remat)[0]

    def losses(self, row: Row, run: RunConfig, dropout_key: jax.Array | None = None) -> LossSums:
        """Weighted loss sums over the global batch (ops/loss.py)."""
        return self.losses_from_embeddings(self.embed(row, run), row, run, dropout_key)

    def losses_from_embeddings(
        self, x_BSD: jax.Array, row: Row, run: RunConfig, dropout_key: jax.Array | None = None
    ) -> LossSums:
        """`losses` of rows that are embedded already, for gradients with respect to the embedded tokens."""
        hidden_BSD = self.hidden(x_BSD, row, run, dropout_key)
        head = self.llm.output_embedding
        return loss_sums(hidden_BSD, head[...], head.axes, row["targets"], row["loss_weights"], chunk=run.loss_chunk)


def logits(model: Molmo2, hidden_BSD: jax.Array) -> jax.Array:
    """float32[B, S, V], for decoding and tests. Training never makes this array."""
    table_VD = jax.sharding.reshard(
        model.llm.output_embedding[...].astype(hidden_BSD.dtype), sharding.gathered(("vocab", "embed"))
    )
    return jnp.einsum(
        "BSD,VD->BSV", hidden_BSD, table_VD, out_sharding=sharding.B_S_F, preferred_element_type=jnp.float32
    )
