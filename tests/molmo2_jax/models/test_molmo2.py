"""The whole model: which tokens influence which, on one device and on eight."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import llm
from molmo2_jax.models.molmo2 import logits
from molmo2_jax.models.structure import structure
from tests.molmo2_jax.models.small import KINDS, RUN, random_weights, rows

ONE = (1, 1, 1, 1)

# Softmax ignores a constant added to all keys of a query: these gradients are rounding errors.
ROUNDING = {"vit/blocks/attn/k/b", "connector/k/b"}


def mesh_of(sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    return sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), devices)


def set_up(kind, mesh, batch):
    """(structure, weights, rows) on a mesh."""
    s = structure(KINDS[kind])
    params = jax.device_put(random_weights(s.shapes), {name: a.sharding for name, a in s.abstract(mesh).items()})
    return s, params, sharding.put_rows(batch, mesh)


@functools.cache
def reference(kind, batch=2):
    """(loss, gradients) on one device, with RUN."""
    return loss_and_gradients(kind, ONE, rows(KINDS[kind], batch))


def loss_and_gradients(kind, sizes, batch, run=RUN, key=None):
    mesh = mesh_of(sizes)
    with jax.set_mesh(mesh):
        s, params, row = set_up(kind, mesh, batch)

        @jax.jit
        def step(params, row):
            def loss(params):
                sums = s.model(params).losses(row, run, key)
                return (sums.cross_entropy + 1e-4 * sums.z) / sums.weight

            return jax.value_and_grad(loss)(params)

        return jax.tree.map(np.asarray, step(params, row))


def token_gradients(kind, batch, weights, attention):
    """d loss / d embedded tokens [B, S, D], where only `weights` carries loss."""
    mesh = mesh_of(ONE)
    with jax.set_mesh(mesh):
        s, params, row = set_up(kind, mesh, batch | {"loss_weights": weights})
        run = dataclasses.replace(RUN, attention=attention)
        model = s.model(params)

        def loss(x):
            return model.losses_from_embeddings(x, row, run).cross_entropy

        return np.asarray(jax.jit(jax.grad(loss))(jax.jit(model.embed, static_argnums=1)(row, run)))


@pytest.mark.parametrize(
    ("kind", "sizes"), [("qwen3_tied", (2, 2, 1, 2)), ("qwen3_untied", (1, 4, 1, 1)), ("olmo3", (2, 2, 1, 2))]
)
def test_eight_devices_give_the_loss_and_gradients_of_one(kind, sizes):
    batch = rows(KINDS[kind], batch=4)
    loss, grads = reference(kind, 4)
    other_loss, other = loss_and_gradients(kind, sizes, batch)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    for name, g in grads.items():
        scale = np.abs(g).max() if name not in ROUNDING else np.abs(grads[name[:-1] + "w"]).max()
        np.testing.assert_allclose(other[name], g, rtol=0, atol=2e-5 * scale, err_msg=name)


@pytest.mark.parametrize("kind", ["qwen3_tied", "olmo3"])
def test_every_parameter_but_unused_rows_gets_a_gradient(kind):
    _, grads = reference(kind)
    assert {n for n, g in grads.items() if not g.any()} <= ROUNDING
    new = grads["llm/embed/new"]
    assert new[2].any() and not np.delete(new, 2, axis=0).any()


@pytest.mark.parametrize("attention", ["dense", "blockwise"])
@pytest.mark.parametrize("kind", ["qwen3_tied", "olmo3"])
def test_branches_and_examples_do_not_see_each_other_at_all(kind, attention):
    batch = rows(KINDS[kind])
    weights = np.zeros_like(batch["loss_weights"])
    weights[:, 28:40] = 1.0  # the loss of branch B
    grads = np.abs(token_gradients(kind, batch, weights, attention)).max(-1)
    assert (grads[:, 16:28] == 0).all()  # branch A
    assert (grads[:, 40:] == 0).all()  # the other example, and padding
    assert (grads[:, :16] > 0).all()  # the image and the shared text
    assert (grads[:, 28:39] > 0).any()


def test_visual_tokens_see_later_visual_tokens():
    batch = rows(KINDS["qwen3_tied"])
    only_first = np.zeros_like(batch["loss_weights"])
    only_first[:, 1] = 1.0
    grads = np.abs(token_gradients("qwen3_tied", batch, only_first, "blockwise")).max(-1)
    assert (grads[:, 1:13] > 0).all() and (grads[:, 13:] == 0).all()


def test_features_are_added_to_the_token_embeddings_at_their_slots():
    batch = rows(KINDS["qwen3_tied"])
    batch["visual_slots"][:, 6:] = 64  # unused
    mesh = mesh_of(ONE)
    with jax.set_mesh(mesh):
        s, params, row = set_up("qwen3_tied", mesh, batch)
        model = s.model(params)

        @jax.jit
        def embeddings():
            features = model.vit(row["crops"], jnp.float32, remat="none", attention="dense")
            added = model.embed(row, RUN) - model.llm.embed(row["tokens"], jnp.float32)
            return added, model.connector(features, row["pooling"])

        added, visual = jax.tree.map(np.asarray, embeddings())
    np.testing.assert_allclose(added[:, 1:7], visual[:, :6], atol=1e-6)
    assert not added[:, 7:].any() and not added[:, 0].any()


def test_absent_patches_do_not_change_a_visual_token():
    c = KINDS["qwen3_tied"]
    batch = rows(c)
    mesh = mesh_of(ONE)
    with jax.set_mesh(mesh):
        s, params, row = set_up("qwen3_tied", mesh, batch)
        connector = s.model(params).connector
        features = jax.random.normal(jax.random.key(0), (2, 2, 729, 32), out_sharding=sharding.B_C_P_D)

        @jax.jit
        def pooled(features):
            # `narrow`: the same tokens without the unused indices.
            full, narrow = connector(features, row["pooling"]), connector(features, row["pooling"][:, 6:, :4])
            return full, narrow, jax.grad(lambda f: connector(f, row["pooling"][:, 6:]).sum())(features)

        full, narrow, grads = jax.tree.map(np.asarray, pooled(features))
    np.testing.assert_allclose(full[:, 6:], narrow, atol=1e-6)
    touched = np.unique(batch["pooling"][0, 6:, :4])
    unused = np.setdiff1d(np.arange(2 * 729), touched)
    assert not grads.reshape(2, 2 * 729, 32)[0, unused].any()


@pytest.mark.parametrize("remat", ["full", "out"])
def test_remat_changes_no_value(remat):
    batch = rows(KINDS["olmo3"])
    loss, grads = reference("olmo3")
    again, other = loss_and_gradients("olmo3", ONE, batch, dataclasses.replace(RUN, remat=remat, vit_remat=remat))
    assert again == pytest.approx(loss, rel=1e-6)
    for name, g in grads.items():
        np.testing.assert_allclose(other[name], g, atol=1e-6, err_msg=name)


def test_dropout_has_two_rates_and_does_not_depend_on_the_mesh():
    batch = rows(KINDS["qwen3_tied"], batch=4)
    key = jax.random.key(3)

    def loss(sizes, **rates):
        return float(loss_and_gradients("qwen3_tied", sizes, batch, dataclasses.replace(RUN, **rates), key)[0])

    plain = float(reference("qwen3_tied", 4)[0])
    both = loss(ONE, residual_dropout=0.3, response_dropout=0.1)
    assert both != plain
    assert loss((2, 2, 1, 2), residual_dropout=0.3, response_dropout=0.1) == pytest.approx(both, rel=1e-5)
    assert len({plain, both, loss(ONE, residual_dropout=0.3), loss(ONE, response_dropout=0.1)}) == 4


def test_each_sub_layer_has_its_own_mask(monkeypatch):
    masks = []

    def record(x_BSD, mask_BSD, rate_BS):
        masks.append(mask_BSD)
        if len(masks) == 2:
            raise InterruptedError  # ends the tracing
        return x_BSD

    monkeypatch.setattr(llm, "dropout", record)
    run = dataclasses.replace(RUN, residual_dropout=0.3)
    with pytest.raises(InterruptedError):
        loss_and_gradients("qwen3_tied", ONE, rows(KINDS["qwen3_tied"]), run, jax.random.key(3))
    assert masks[0] is not masks[1]


def test_the_loss_is_the_cross_entropy_of_the_logits():
    batch = rows(KINDS["qwen3_untied"])
    mesh = mesh_of(ONE)
    with jax.set_mesh(mesh):
        s, params, row = set_up("qwen3_untied", mesh, batch)
        model = s.model(params)

        @jax.jit
        def both():
            return logits(model, model.hidden(model.embed(row, RUN), row, RUN)), model.losses(row, RUN).cross_entropy

        scores, cross_entropy = jax.tree.map(np.asarray, both())
    log_probs = jax.nn.log_softmax(scores)
    ce = -np.take_along_axis(np.asarray(log_probs), batch["targets"][..., None], -1)[..., 0]
    assert float(cross_entropy) == pytest.approx((ce * batch["loss_weights"]).sum(), rel=1e-5)


def test_bfloat16_compute_stays_close_and_gradients_stay_float32():
    batch = rows(KINDS["qwen3_tied"])
    loss, _ = reference("qwen3_tied")
    rough, grads = loss_and_gradients("qwen3_tied", ONE, batch, dataclasses.replace(RUN, dtype="bfloat16"))
    assert rough == pytest.approx(loss, rel=2e-2)
    assert all(g.dtype == np.float32 for g in grads.values())


def test_a_missing_parameter_is_named():
    with jax.set_mesh(mesh_of(ONE)):
        s = structure(KINDS["qwen3_tied"])
        with pytest.raises(KeyError, match="llm/norm/scale"):
            s.model({n: a for n, a in random_weights(s.shapes).items() if n != "llm/norm/scale"})


@pytest.mark.parametrize("sizes", [ONE, (2, 2, 1, 2)])
def test_a_batch_without_visual_tokens_skips_vision(sizes):
    # Any use of these parameters, even times zero, would give NaN.
    batch = rows(KINDS["qwen3_tied"], batch=4)
    texts = batch | {"visual_slots": np.full_like(batch["visual_slots"], batch["tokens"].shape[1])}
    mesh = mesh_of(sizes)
    with jax.set_mesh(mesh):
        s, params, row = set_up("qwen3_tied", mesh, texts)
        params = {n: p * jnp.nan if n.startswith(("vit", "connector")) else p for n, p in params.items()}

        def loss_of(params):
            return s.model(params).losses(row, RUN).cross_entropy

        loss, grads = jax.jit(jax.value_and_grad(loss_of))(params)
    assert np.isfinite(loss) and np.abs(grads["llm/blocks/attn/q/w"]).max() > 0
    for name, g in grads.items():
        assert np.isfinite(g).all(), name
        assert not name.startswith(("vit", "connector")) or not np.asarray(g).any(), name
