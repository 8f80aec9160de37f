"""What a kernel and a context strategy are: modules with a `forward` and a `backward`.

A kernel computes attention of some queries to some keys on one device. A strategy moves keys, or heads, over the mesh
axis `context` around a kernel. Both run per device, inside `jax.shard_map`.

    lse     log(sum(exp(scores))) over the keys, float32; -1e30 for a query that sees no key, whose output is zeros.
            The backward pass takes the lse over ALL keys of a query, so that gradients of parts of the keys add up.
    delta   sum_H(d_out * out) of the final output, float32.
"""

from typing import Protocol

import jax

from molmo2_jax.ops.attention.mask import Visibility


class Kernel(Protocol):
    """Attention on one device under `mask.allowed`; K kv heads serve N query heads, N a multiple of K."""

    def forward(
        self, q_BQNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, q_vis: Visibility, k_vis: Visibility
    ) -> tuple[jax.Array, jax.Array]:
        """(out_BQNH in q's dtype, lse_BNQ)."""

    def backward(
        self,
        q_BQNH: jax.Array,
        k_BSKH: jax.Array,
        v_BSKH: jax.Array,
        q_vis: Visibility,
        k_vis: Visibility,
        lse_BNQ: jax.Array,
        delta_BNQ: jax.Array,
        d_out_BQNH: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(dq, dk, dv), all float32, of the part of attention that goes to these keys."""


class Strategy(Protocol):
    """Attention of this device's queries to the keys of the whole row; q, k, v and vis are this device's shards."""

    def forward(
        self, kernel: Kernel, q_BQNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, vis: Visibility
    ) -> tuple[jax.Array, jax.Array]:
        """(out_BQNH in q's dtype, lse as `backward` takes it)."""

    def backward(
        self,
        kernel: Kernel,
        q_BQNH: jax.Array,
        k_BSKH: jax.Array,
        v_BSKH: jax.Array,
        vis: Visibility,
        lse: jax.Array,
        delta_BNQ: jax.Array,
        d_out_BQNH: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(dq, dk, dv) of this device's queries and keys, float32 or the dtypes of q, k, v."""
