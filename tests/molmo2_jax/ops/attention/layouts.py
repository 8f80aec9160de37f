"""Rows with every kind of visibility; inputs, gradients and tolerance for the tests of attention."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from molmo2_jax.ops.attention import mask
from molmo2_jax.ops.attention.dense import dense_attention

TOLERANCE = 1e-5  # of the largest value compared
LENGTH = 96


def _runs(*pairs):
    """[(value, count), ...] -> int32[LENGTH], padded with zeros."""
    row = np.array([value for value, count in pairs for _ in range(count)], np.int32)
    return np.pad(row, (0, LENGTH - len(row)))


_TREE = _runs((90, 20), (55, 15), (40, 5), (55, 15), (90, 10), (75, 10), (90, 15))  # two branches, one with its own
_PACKED = _runs((30, 30), (70, 40), (94, 24))
_FRAMES = _runs((0, 2), (1, 14), (0, 2), (2, 14), (0, 2), (3, 14))

# name -> (visible_until, image_group), int32[LENGTH] each
LAYOUTS = {
    "causal": (_runs((LENGTH, LENGTH)), _runs()),
    "tree": (_TREE, _runs()),
    "packed": (_PACKED, _runs()),
    "image": (_runs((LENGTH, LENGTH)), _runs((0, 10), (1, 50))),  # across several shards
    "within_image": (_runs((90, 90)), _FRAMES),
    "mixed": (
        # an example with images of one group and two branches, a text, an example with one group per image, padding
        _runs((44, 24), (34, 10), (44, 10), (56, 12), (88, 32)),
        _runs((0, 2), (1, 8), (0, 2), (1, 8), (0, 36), (0, 2), (2, 7), (0, 2), (3, 7)),
    ),
    "nothing": (_runs(), _runs()),
}


def vis_of(*rows) -> mask.Visibility:
    """Visibility of rows, each (visible_until, image_group)."""
    until, group = (jnp.asarray(np.array(x, np.int32)) for x in zip(*rows, strict=True))
    return mask.row_visibility(until, group)


def inputs(B=2, S=LENGTH, N=4, K=2, H=8, seed=0, dtype=np.float32):
    """Random (q, k, v, d_out)."""
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(B, S, n, H)).astype(dtype) for n in (N, K, K, N))


@functools.cache
def oracle():
    """jitted (q, k, v, d_out, vis) -> (out, dq, dk, dv) of dense attention."""

    @jax.jit
    def run(q, k, v, d_out, vis):
        out, pull = jax.vjp(lambda q, k, v: dense_attention(q, k, v, vis, vis), q, k, v)
        return (out, *pull(d_out))

    return run


def of_kernel(forward, backward):
    """As `oracle`, for the two functions of a kernel."""

    @jax.jit
    def run(q, k, v, d_out, vis):
        out, lse = forward(q, k, v, vis, vis)
        delta = jnp.einsum("BQNH,BQNH->BNQ", d_out.astype(jnp.float32), out.astype(jnp.float32))
        return (out, *backward(q, k, v, vis, vis, lse, delta, d_out))

    return run


def assert_close(got, want, tolerance=TOLERANCE):
    """(out, dq, dk, dv) within `tolerance` of the largest value."""
    # The gradient of a query that sees only itself is rounding errors: outputs and gradients share one scale.
    scale = max(float(jnp.abs(b).max()) for b in want)
    for name, a, b in zip(("out", "dq", "dk", "dv"), got, want, strict=True):
        assert float(np.abs(np.asarray(a) - np.asarray(b)).max()) <= tolerance * scale, name
