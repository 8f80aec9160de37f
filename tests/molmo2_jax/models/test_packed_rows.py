"""Examples in one row have the loss and gradients that they have alone: real records, the whole model."""

import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines.loading.dataset import open_dataset
from data_pipelines.packing.row import build_row, lay_out_row
from data_pipelines.packing.schema import RowShape, empty_row
from data_pipelines.packing.vision_shards import place
from data_pipelines.sequence.example import describe
from molmo2_jax import sharding
from molmo2_jax.models.structure import structure
from tests.molmo2_jax.models.small import RUN, random_weights, small
from tests.molmo2_jax.models.test_molmo2 import ROUNDING

ASK = {"style": "user_qa", "user": "What is this?", "answer": "A street with parked cars."}
POINT = {
    "style": "pointing",
    "question": "Point to the sign.",
    "answer": {"label": "sign", "points": [{"x": 3, "y": 4}, {"x": 200, "y": 9}]},
}
TRACK = {
    "style": "video_point_track_per_frame",
    "answer": {
        "label": "the rider",
        "fps": 2,
        "tracks": [{"time": 2.0, "points": {"7": [9, 9]}}, {"time": 2.5, "points": {"7": [20, 9], "3": [100, 50]}}],
    },
}
RECORDS = (
    {
        "id": "video",
        "video": "bikes.mp4",
        "clip": [2, 3],
        "messages": [TRACK, {**ASK, "then": [ASK | {"weight": 0.5}]}],
    },
    {"id": "image", "image": "sign.png", "messages": [POINT, ASK, ASK | {"user": "And where?"}]},
    {"id": "text", "messages": [ASK]},
)


@pytest.fixture
def examples(folder, write_records, tokenizer, data_config):
    Image.effect_mandelbrot((300, 120), (-2, -1, 1, 1), 40).convert("RGB").save(folder / "sign.png")
    dataset = open_dataset(str(write_records(*RECORDS)))
    c = data_config(points_format="html-v2", templates=True, style_prefix="demo_or_style")
    settings = {"dataset": "d", "high_res": 0.0, "dataset_weight": None}
    rng = np.random.default_rng(0)
    return [
        describe(dataset.record(i), rng, tokenizer, c.view, c.prompts, c.token_weights, **settings) for i in range(3)
    ]


def even(n):
    return n + n % 2


def losses_and_gradients(rows, context):
    """((loss, weight), gradients) of each row, on `context` devices with a vision shard each."""
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1) | {"context": context}, jax.devices()[:context])
    with jax.set_mesh(mesh):
        s = structure(small(vocab=151_936))
        params = jax.device_put(random_weights(s.shapes), {name: a.sharding for name, a in s.abstract(mesh).items()})

        @jax.jit
        def step(row):
            def loss(params):
                sums = s.model(params).losses(row, RUN)
                return sums.cross_entropy + 1e-4 * sums.z, sums.weight

            return jax.value_and_grad(loss, has_aux=True)(params)

        global_rows = [sharding.put_rows({name: a[None] for name, a in row.items()}, mesh) for row in rows]
        return [jax.tree.map(np.asarray, step(row)) for row in global_rows]


def row_of(examples, shape, tokenizer):
    row, failures = build_row(examples, shape, tokenizer, 4.0)
    assert failures == []
    return row


def sharded_row_of(examples, shape, shards, tokenizer):
    """As `row_of`, with `shards` vision shards."""
    row = empty_row(shape)
    for placed in lay_out_row(row, examples, place([e.units for e in examples], shape, shards), tokenizer, 4.0):
        crops = [crop for plan in placed.example.media for crop in plan.crops()]
        if crops:
            row["crops"][placed.crop_slots] = crops
    return row


def shape_for(examples):
    total = [sum(getattr(e, name) for e in examples) for name in ("n_tokens", "n_crops", "n_pooled")]
    return RowShape(seq_len=even(total[0] + 5), crops=even(total[1] + 1), pooled=2 * total[2])


def assert_close(got, wanted, scales):
    """Gradients within 2e-5 of the largest value of each parameter in `scales`, a list of gradients."""
    for name, g in wanted.items():
        largest = [one[name[:-1] + "w"] if name in ROUNDING else one[name] for one in scales]
        atol = 2e-5 * max(np.abs(x).max() for x in largest)
        np.testing.assert_allclose(got[name], g, rtol=0, atol=atol, err_msg=name)


def test_a_packed_row_has_the_loss_and_gradients_of_its_examples(examples, tokenizer):
    shape = shape_for(examples)
    rows = [row_of(some, shape, tokenizer) for some in (examples, *([example] for example in examples))]
    ((loss, weight), grads), *alone = losses_and_gradients(rows, context=1)
    assert weight == pytest.approx(sum(w for (_, w), _ in alone), rel=1e-6)
    assert loss == pytest.approx(sum(x for (x, _), _ in alone), rel=1e-5)
    assert len({round(float(x), 3) for (x, _), _ in alone}) == 3  # three examples, not one three times
    parts = [g for _, g in alone]
    assert_close({name: sum(part[name] for part in parts) for name in grads}, grads, parts)


def test_vision_shards_on_two_devices_have_the_loss_and_gradients_of_one(examples, tokenizer):
    shape = shape_for(examples)
    (((loss, weight), grads),) = losses_and_gradients([row_of(examples, shape, tokenizer)], context=1)
    sharded = sharded_row_of(examples, shape, 2, tokenizer)
    assert (sharded["pooling"].max(axis=1) >= 0)[shape.pooled // 2 :].any()  # the second shard has visual tokens
    (((sharded_loss, sharded_weight), sharded_grads),) = losses_and_gradients([sharded], context=2)
    assert sharded_loss == pytest.approx(loss, rel=1e-5) and sharded_weight == pytest.approx(weight, rel=1e-5)
    assert_close(sharded_grads, grads, [grads])
