"""The model against the Molmo2 of transformers 5.23.0: its outputs for small models, stored by make_goldens.py.

A failure means that the architecture changed (or the draws of golden_cases.py, or a parameter's name they go by).
Goldens are only ever made by transformers, never by this model.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import params as parameters
from molmo2_jax.models.molmo2 import logits
from tests.models import golden_cases as cases
from tests.models.small import RUN


@functools.cache
def golden(medium):
    with np.load(cases.FOLDER / f"{medium}.npz") as stored:
        return dict(stored)


@functools.cache
def program(function, kind):
    """(jitted function(structure, params, row), params, mesh) on one device, for images and videos alike."""
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        s = parameters.structure(cases.KINDS[kind])
        targets = {name: a.sharding for name, a in s.abstract(mesh).items()}
        params = {name: jax.device_put(a, targets[name]) for name, a in cases.weights(s.shapes).items()}
        return jax.jit(functools.partial(function, s)), params, mesh


def outputs(function, kind, row):
    run, params, mesh = program(function, kind)
    with jax.set_mesh(mesh):
        batch = sharding.put_rows({name: a[None] for name, a in row.items()}, mesh)
        return jax.tree.map(np.asarray, run(params, batch))


def vision(s, params, row):
    model = s.model(params)
    features = model.vit(row["crops"], jnp.float32, "none")
    return features, model.connector(features, row["pooling"])


def whole(s, params, row):
    def loss(params):
        model = s.model(params)
        x = model.embed(row, RUN)
        sums = model.losses_of(x, row, RUN)
        return (sums.cross_entropy + cases.Z_LOSS * sums.z) / sums.weight, x

    (value, x), grads = jax.value_and_grad(loss, has_aux=True)(params)
    model = s.model(params)
    return logits(model, model.hidden(x, row, RUN)), value, grads


def assert_close(got, want, tolerance, name):
    """Within `tolerance` of the largest value."""
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max(), err_msg=name)


@pytest.mark.parametrize("medium", cases.MEDIA)
def test_features_and_visual_tokens_are_those_of_transformers(medium):
    row, _, g = cases.row(medium)
    features, visual = outputs(vision, "qwen3_tied", row)
    for name, kept in cases.kept_vision(features[0], visual[0, :g]).items():
        assert_close(kept, golden(medium)[name], 1e-5, name)


@pytest.mark.parametrize("medium", cases.MEDIA)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_logits_loss_and_gradients_are_those_of_transformers(kind, medium):
    row, n, _ = cases.row(medium)
    scores, loss, grads = outputs(whole, kind, row)
    want = golden(medium)
    kept = cases.kept(kind, scores[0, :n], loss, grads)
    assert kept[f"{kind}/names"].tolist() == want[f"{kind}/names"].tolist()
    assert_close(kept[f"{kind}/logits"], want[f"{kind}/logits"], 2e-5, "logits")
    assert kept[f"{kind}/loss"] == pytest.approx(want[f"{kind}/loss"], rel=1e-5)
    rows = zip(kept[f"{kind}/names"], kept[f"{kind}/gradients"], want[f"{kind}/gradients"], strict=True)
    for name, ours, theirs in rows:
        assert_close(ours, theirs, 2e-5, f"gradient of {name}")
