"""The decoder: Qwen3 or OLMo3 by the values of LlmConfig.

The caller passes the attention function (`attend`), so that training, prefill and decoding share one block.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from molmo2_jax import sharding
from molmo2_jax.models.config import LlmConfig
from molmo2_jax.models.layers import Linear, RMSNorm, dropout, dropout_masks, param, run_stack
from molmo2_jax.ops import rope

# attend(q_BSNH, k_BSKH, v_BSKH, layer_state) -> (out_BSNH, new layer_state)
Attend = Callable[[jax.Array, jax.Array, jax.Array, object], tuple[jax.Array, object]]


class Dropout(NamedTuple):
    """Residual dropout of one forward pass: a random key and float32[B, S] rates."""

    key: jax.Array
    rate_BS: jax.Array


class Attention(nnx.Module):
    """Grouped-query attention: projections, QK norm, RoPE, `attend`, output projection."""

    def __init__(self, c: LlmConfig, rngs: nnx.Rngs, stack: int | None):
        def project_in(heads, axis):
            shape, axes = (c.width, heads, c.head_dim), ("embed", axis, "head_dim")
            return Linear(rngs, "BSD,DNH->BSNH", shape, axes, sharding.B_S_N_H, stack=stack)

        self.q = project_in(c.heads, "heads")
        self.k = project_in(c.kv_heads, "kv_heads")
        self.v = project_in(c.kv_heads, "kv_heads")
        if c.qk_norm == "head":
            self.q_norm = RMSNorm(rngs, (c.head_dim,), ("norm",), c.norm_eps, stack=stack)
            self.k_norm = RMSNorm(rngs, (c.head_dim,), ("norm",), c.norm_eps, stack=stack)
        elif c.qk_norm == "projection":
            self.q_norm = RMSNorm(rngs, (c.heads, c.head_dim), ("heads", "head_dim"), c.norm_eps, stack=stack)
            self.k_norm = RMSNorm(rngs, (c.kv_heads, c.head_dim), ("kv_heads", "head_dim"), c.norm_eps, stack=stack)
        elif c.qk_norm == "none":
            self.q_norm = self.k_norm = None
        else:
            raise ValueError(f'qk_norm is "head", "projection" or "none", not {c.qk_norm!r}')
        out_std = 0.02 / (2 * c.layers) ** 0.5
        shape, axes = (c.heads, c.head_dim, c.width), ("heads", "head_dim", "embed")
        self.o = Linear(rngs, "BSNH,NHD->BSD", shape, axes, sharding.B_S_D, std=out_std, stack=stack)

    def __call__(
        self, x_BSD: jax.Array, table_BS2F: jax.Array, attend: Attend, state: object
    ) -> tuple[jax.Array, object]:
        q_BSNH, k_BSKH, v_BSKH = checkpoint_name((self.q(x_BSD), self.k(x_BSD), self.v(x_BSD)), "qkv")
        if self.q_norm is not None:
            q_BSNH, k_BSKH = self.q_norm(q_BSNH), self.k_norm(k_BSKH)
        out_BSNH, state = attend(rope.rotate(q_BSNH, table_BS2F), rope.rotate(k_BSKH, table_BS2F), v_BSKH, state)
        return checkpoint_name(self.o(out_BSNH), "out"), state


class Mlp(nnx.Module):
    """SwiGLU without biases."""

    def __init__(self, c: LlmConfig, rngs: nnx.Rngs, stack: int | None):
        project_in = functools.partial(
            Linear, rngs, "BSD,DF->BSF", (c.width, c.mlp), ("embed", "mlp"), sharding.B_S_F, stack=stack
        )
        self.gate, self.up = project_in(), project_in()
        out_std = 0.02 / (2 * c.layers) ** 0.5
        self.down = Linear(
            rngs, "BSF,FD->BSD", (c.mlp, c.width), ("mlp", "embed"), sharding.B_S_D, std=out_std, stack=stack
        )

    def __call__(self, x_BSD: jax.Array) -> jax.Array:
        gate_BSF, up_BSF = checkpoint_name(self.gate(x_BSD), "gate"), checkpoint_name(self.up(x_BSD), "up")
        return checkpoint_name(self.down(jax.nn.silu(gate_BSF) * up_BSF), "out")


class Block(nnx.Module):
    """Two residual sub-layers, normalised before (Qwen3) or after (OLMo3), each with dropout on its output."""

    def __init__(self, c: LlmConfig, rngs: nnx.Rngs, stack: int | None):
        self.norm_after = c.norm_after
        self.attn_norm = RMSNorm(rngs, (c.width,), ("norm",), c.norm_eps, stack=stack)
        self.attn = Attention(c, rngs, stack)
        self.mlp_norm = RMSNorm(rngs, (c.width,), ("norm",), c.norm_eps, stack=stack)
        self.mlp = Mlp(c, rngs, stack)

    def __call__(
        self,
        x_BSD: jax.Array,
        table_BS2F: jax.Array,
        attend: Attend,
        state: object,
        drop: Callable[[jax.Array, int], jax.Array],
    ) -> tuple[jax.Array, object]:
        before, after = (_identity, _apply) if self.norm_after else (_apply, _identity)
        y_BSD, state = self.attn(before(self.attn_norm, x_BSD), table_BS2F, attend, state)
        x_BSD = x_BSD + drop(after(self.attn_norm, y_BSD), 0)
        y_BSD = self.mlp(before(self.mlp_norm, x_BSD))
        return x_BSD + drop(after(self.mlp_norm, y_BSD), 1), state


def _apply(norm, x):
    return norm(x)


def _identity(norm, x):
    return x


class Embedding(nnx.Module):
    """Token embedding: base rows (frozen by default, also the head if tied) and the rows of Molmo2's new tokens."""

    def __init__(self, c: LlmConfig, rngs: nnx.Rngs):
        # 0.02 at 4B, like the reference. A small model with a tied head could not reach large logits with 0.02.
        self.base = param(rngs, (c.vocab, c.width), ("vocab", "embed"), std=c.width**-0.5, stack=None)
        self.new = param(rngs, (c.new_vocab, c.width), ("new_vocab", "embed"), std=0.02, stack=None)

    @jax.named_scope("embedding")
    def __call__(self, tokens_BS: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """[B, S] tokens -> [B, S, D] in dtype, sharded as B_S_D.

        Devices exchange tokens and columns, not tables: each device looks up its columns for all tokens of its fsdp
        group, and the device that holds a token receives all columns of it. At 8B a device with 16,384 tokens receives
        0.13 GB; the table has 1.2 GB.

            fsdp 2    device 0 has tokens a b, columns 0-3        device 1 has tokens c d, columns 4-7
            look up   a b c d, columns 0-3                        a b c d, columns 4-7
            exchange  a b, columns 0-7                            c d, columns 0-7

        Gradients return the same way and are summed in float32, in the table's shards.
        """

        def local(base_VD, new_VD, tokens_BS):
            tokens_BS = jax.lax.all_gather(tokens_BS, sharding.FSDP, axis=0, tiled=True)
            first = jax.lax.axis_index(sharding.TENSOR) * base_VD.shape[0]
            # A token has a row in one table, on one device along tensor; the others add zeros.
            base_BSD = jax.lax.psum(_take_rows(base_VD, tokens_BS - first).astype(dtype), sharding.TENSOR)
            x_BSD = base_BSD + _take_rows(new_VD, tokens_BS - self.base.shape[0]).astype(dtype)
            return jax.lax.all_to_all(x_BSD, sharding.FSDP, split_axis=0, concat_axis=2, tiled=True)

        tables = [sharding.stored(p.axes, 2) for p in (self.base, self.new)]
        tokens_BS = jax.sharding.reshard(tokens_BS, sharding.B_S)
        mapped = jax.shard_map(local, in_specs=(*tables, sharding.B_S), out_specs=sharding.B_S_D)
        return mapped(self.base[...], self.new[...], tokens_BS)


def _take_rows(table, ids):
    """Rows of a table; zeros for ids outside of it."""
    ids = jnp.where(ids < 0, table.shape[0], ids)  # .at counts negative indices from the end
    return table.at[ids].get(mode="fill", fill_value=0)


class Llm(nnx.Module):
    """Embedding, stacked blocks, final norm and output embedding."""

    def __init__(self, c: LlmConfig, rngs: nnx.Rngs):
        self.config = c
        self.embed = Embedding(c, rngs)
        self.blocks = Block(c, rngs, c.layers)
        self.norm = RMSNorm(rngs, (c.width,), ("norm",), c.norm_eps)
        if not c.tied:
            self.head = param(rngs, (c.vocab, c.width), ("vocab", "embed"), std=c.width**-0.5, stack=None)

    @property
    def output_embedding(self) -> nnx.Param:
        """[V, D]; logits are x @ output_embedding^T."""
        return self.embed.base if self.config.tied else self.head

    @jax.named_scope("llm")
    def __call__(
        self,
        x_BSD: jax.Array,
        positions_BS: jax.Array,
        attend: Attend,
        *,
        states: Any = None,
        dropout_: Dropout | None = None,
        remat: str,
    ) -> tuple[jax.Array, Any]:
        """Embedded tokens -> (hidden states after the final norm, the layers' new states, stacked).

        Args:
          states: the layer states that `attend` reads, stacked; None if it has none.
          remat: a key of layers.REMAT.
        """
        c = self.config
        plain = rope.rope_table(positions_BS, rope.inverse_frequencies(c.head_dim, c.rope_theta), 1.0)
        tables = [plain]
        if c.yarn is not None:
            stretched = rope.inverse_frequencies(c.head_dim, c.rope_theta, c.yarn)
            tables.append(rope.rope_table(positions_BS, stretched, c.yarn.attention_factor))
        use_yarn_L = jnp.array([layer in c.yarn_layers for layer in range(c.layers)])
        keys_L = None if dropout_ is None else jax.random.split(dropout_.key, c.layers)

        def step(block, x, layer):
            use_yarn, key, state = layer
            table = tables[0] if len(tables) == 1 else jnp.where(use_yarn, tables[1], tables[0])
            masks = None if key is None else dropout_masks(x, key, dropout_.rate_BS)

            def drop(y, i):
                return y if masks is None else dropout(y, masks[i], dropout_.rate_BS)

            return block(x, table, attend, state, drop)

        x_BSD, states = run_stack(self.blocks, step, x_BSD, (use_yarn_L, keys_L, states), remat)
        return self.norm(x_BSD), states
