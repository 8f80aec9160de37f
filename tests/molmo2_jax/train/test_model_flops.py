"""FLOPs by the formula against the matrix products of the traced model, and by hand."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings

from data_pipelines.packing.schema import RowShape, empty_row
from molmo2_jax import sharding
from molmo2_jax.models import structure as parameters
from molmo2_jax.models.vit import padded_patches
from molmo2_jax.train import model_flops
from tests.molmo2_jax.models.small import KINDS, RUN, rows
from tests.molmo2_jax.ops.attention import trees


@given(trees.rows())
@settings(max_examples=100)
def test_visible_pairs_are_those_the_mask_allows(rows):
    assert model_flops.visible_pairs({"visible_until": rows.until, "image_group": rows.group}) == rows.allowed.sum()


def text(tokens, supervised, length=8):
    """One row of `tokens` causal tokens, of which the last `supervised` carry loss."""
    row = {name: a[None] for name, a in empty_row(RowShape(length, 2, 4)).items()}
    row["visible_until"][:, :tokens] = tokens
    row["loss_weights"][:, tokens - supervised : tokens] = 0.5
    return row


def test_a_text_row_by_hand():
    # width 32, 4 x 12 query and 2 x 12 key-value channels, mlp 48, vocabulary 320, 2 layers
    weights = 2 * (32 * 48 + 2 * 32 * 24 + 48 * 32 + 3 * 32 * 48)
    pairs = 1 + 2 + 3
    by_hand = 6 * weights * 3 + 6 * 320 * 32 * 2 + 2 * 12 * 48 * pairs
    assert model_flops.model_flops(KINDS["qwen3_tied"], text(3, 2)) == by_hand == 461_568


def test_padding_costs_nothing():
    c = KINDS["qwen3_tied"]
    assert model_flops.model_flops(c, text(3, 2, length=64)) == model_flops.model_flops(c, text(3, 2))
    assert model_flops.model_flops(c, text(0, 0)) == 0


def test_black_crops_cost_as_much_as_others_and_unused_ones_nothing():
    c = KINDS["qwen3_tied"]
    row = rows(c)
    row["pooling"][..., 0] = 0  # no visual token is of the second crop alone
    full = model_flops.model_flops(c, row)
    assert model_flops.model_flops(c, row | {"crops": np.zeros_like(row["crops"])}) == full
    first = np.where(row["pooling"] < 729, row["pooling"], -1)  # nothing of the second crop
    one = model_flops.model_flops(c, row | {"pooling": first})
    per_crop = 6 * 729 * (588 * 16 + 2 * (4 * 16**2 + 2 * 16 * 24)) + 12 * 2 * 16 * 729**2
    fewer = np.count_nonzero(row["pooling"] >= 0) - np.count_nonzero(first >= 0)
    assert full - one == 2 * per_crop + fewer * 6 * 2 * 32 * 16


def products(jaxpr) -> int:
    """FLOPs of all matrix products of a jaxpr; a scanned body counts as often as it runs, a while loop's once."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            total += 2 * eqn.outvars[0].aval.size * math.prod(eqn.invars[0].aval.shape[d] for d in contracted)
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)  # open or closed
            if hasattr(inner, "eqns"):
                total += times * products(inner)
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_the_formula_counts_the_products_of_the_traced_model(kind):
    c = KINDS[kind]
    row = rows(c, batch=1)
    S, G, K = row["tokens"].shape[1], *row["pooling"].shape[1:]
    # Nothing is masked, padded or absent: every token attends to every other and is supervised.
    row |= {"visible_until": np.full((1, S), S, "i4"), "image_group": np.ones((1, S), "i4")}
    row |= {"loss_weights": np.ones((1, S), "f"), "pooling": np.abs(row["pooling"])}
    run = dataclasses.replace(RUN, attention="dense", loss_chunk=S)
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        s = parameters.structure(c)
        placed = sharding.put_rows(row, mesh)
        traced = jax.make_jaxpr(lambda params: s.model(params).losses(placed, run))(s.abstract(mesh))
    pooling = G * K * 4 * c.connector.heads * c.connector.head_dim  # the formula leaves out pooling's own attention
    assert model_flops.model_flops(c, row) == 3 * (products(traced.jaxpr) - pooling - padding(c, row["crops"].shape[1]))


def padding(c, crops) -> int:
    """FLOPs forward of the rows that the ViT pads crops with; the formula leaves them out, too."""
    v, rows_ = c.vit, padded_patches(c.vit.patches)
    linear = 2 * (rows_ - v.patches) * (4 * v.width**2 + 2 * v.width * v.mlp)
    attention = 4 * v.width * (rows_**2 - v.patches**2)
    return crops * v.layers * (linear + attention)
