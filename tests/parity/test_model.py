"""The model against transformers' Molmo2: sub-module by sub-module, then logits, loss and every parameter's gradient.

The first part that fails names the layer; the parts after it fail, too.
"""

import dataclasses

import numpy as np
import pytest
import torch

from molmo2_jax.weights.hf.source import LAYOUTS
from tests.molmo2_jax.weights.hf.small_hf import assert_equal, read_all, source, structure
from tests.parity import cases, ours, theirs

PARTS = ("features", "visual", "embedded", "block 0", "block 1", "block 2", "norm")

kinds = pytest.mark.parametrize("kind", cases.KINDS)


def used(medium: str, name: str, rows: np.ndarray) -> np.ndarray:
    """The used part of a medium's row of our batch."""
    case, row = cases.case(medium, True), rows[cases.MEDIA.index(medium)]
    return row[: {"features": case.crops, "visual": case.pooled}.get(name, case.tokens)]


@kinds
@pytest.mark.parametrize("layout", LAYOUTS)
def test_transformers_loads_our_export_with_no_missing_and_no_unexpected_key(kind, layout):
    model, info = theirs.loaded(kind, layout)
    assert not any(info.values()), info
    s = structure(cases.KINDS[kind])
    copies = cases.KINDS[kind].llm.vocab * cases.KINDS[kind].llm.width if cases.KINDS[kind].llm.tied else 0
    assert sum(p.numel() for p in model.parameters()) == s.count() + copies


@kinds
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("saved_as", LAYOUTS)
def test_what_transformers_saves_of_our_export_is_what_we_exported(kind, layout, saved_as, tmp_path):
    theirs.loaded(kind, layout)[0].save_pretrained(tmp_path, save_original_format=saved_as == "released")
    assert source(tmp_path).model.molmo2(kind) == cases.KINDS[kind]
    assert_equal(read_all(source(tmp_path)), cases.weights(structure(cases.KINDS[kind]).shapes))


@kinds
@pytest.mark.parametrize("part", PARTS)
def test_a_sub_module_gives_what_it_gives_in_transformers(kind, part):
    for medium in cases.MEDIA[part in ("features", "visual") :]:  # text has no crops
        got, want = used(medium, part, ours.results(kind)[0][part]), theirs.outputs(kind, (medium,))[part]
        want = want.reshape(got.shape)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max(), err_msg=medium)


@kinds
@pytest.mark.parametrize("medium", cases.MEDIA)
def test_logits_are_those_of_transformers(kind, medium):
    got, (want,) = used(medium, "logits", ours.results(kind)[0]["logits"]), theirs.outputs(kind, (medium,))["logits"]
    assert 0.5 < want.std() < 2  # a difference means something only at the scale of logits
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


@kinds
def test_logits_of_unequal_rows_are_those_of_a_left_padded_batch(kind):
    for medium, want in zip(cases.BATCH, theirs.outputs(kind, cases.BATCH)["logits"], strict=True):
        got = used(medium, "logits", ours.results(kind)[0]["logits"])
        np.testing.assert_allclose(got, want[-len(got) :], rtol=0, atol=1e-4, err_msg=medium)


@kinds
def test_loss_and_gradients_are_those_of_transformers(kind):
    _, loss, grads = ours.results(kind)
    their_loss, their_grads = theirs.gradients(kind, [cases.BATCH, ("video",)])
    assert loss == pytest.approx(their_loss, rel=1e-5)
    assert grads.keys() == their_grads.keys()
    s = structure(cases.KINDS[kind])
    for name, theirs_ in their_grads.items():
        apart, scale = (_norms(x, s.layers(name)) for x in (grads[name] - theirs_, theirs_))
        if name in cases.ZERO_GRADIENTS:
            scale = _norms(their_grads[name[:-1] + "w"], s.layers(name))
        assert (scale > 0).all() and (apart < 1e-4 * scale).all(), (name, apart, scale)


def _norms(x: np.ndarray, layers: int | None) -> np.ndarray:
    """Norm of a parameter's gradient, one of each layer where it is stacked."""
    return np.linalg.norm(x.reshape(layers or 1, -1), axis=1)


def test_a_model_that_transformers_made_gives_its_logits_here(tmp_path):
    model = theirs.made()
    model.save_pretrained(tmp_path)
    found = source(tmp_path)
    c = cases.KINDS["olmo3"]
    assert found.model.molmo2("olmo3") == dataclasses.replace(c, vit=dataclasses.replace(c.vit, layers=4))
    s = structure(found.model.molmo2("made"))
    case = cases.case("image", True)
    got = ours.run(ours.scores, s, ours.put_on_mesh(s, read_all(found)), cases.batch([case]))
    with torch.no_grad():
        want = theirs.forward(model, ("image",))["logits"].numpy()
    np.testing.assert_allclose(got[:, : case.tokens], want, rtol=0, atol=1e-4)
