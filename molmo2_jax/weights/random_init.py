"""Random weights, drawn straight into their shards."""

from collections.abc import Collection

import jax
from flax import nnx

from molmo2_jax.models.molmo2 import Molmo2
from molmo2_jax.models.structure import Params, Structure


def init_params(s: Structure, seed: int, names: Collection[str] | None = None) -> Params:
    """Random parameters, drawn straight into their shards.

    Args:
      names: the parameters to draw; None draws all. A parameter has the same values either way.
    """

    @jax.jit
    def draw(key):
        drawn = zip(s.shapes, jax.tree.leaves(nnx.state(Molmo2(s.config, nnx.Rngs(params=key)))), strict=True)
        return {name: x for name, x in drawn if names is None or name in names}

    return draw(jax.random.key(seed))
