"""Examples packed in one row teach what they teach alone: real records through the data engine and the whole model."""

import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines.loading.config import DatasetConfig
from data_pipelines.loading.dataset import open_dataset
from data_pipelines.packing.row import build_row
from data_pipelines.packing.schema import RowShape
from data_pipelines.sequence.example import describe
from molmo2_jax import sharding
from molmo2_jax.models import structure as parameters
from tests.molmo2_jax.models.small import RUN, numbers, small
from tests.molmo2_jax.models.test_molmo2 import SILENT

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
    cfg = data_config(points_format="html-v2", prompts="templates", style_prefix="demo_or_style")
    settings = DatasetConfig("", None, 1.0, None, 0.0)
    rng = np.random.default_rng(0)
    return [e for i in range(3) for e in describe(dataset.record(i), "d", settings, tokenizer, cfg, rng)]


def even(n):
    return n + n % 2


def teach(rows, context):
    """((loss, weight), gradients) of each row, on `context` devices that hold a vision shard each."""
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1) | {"context": context}, jax.devices()[:context])
    with jax.set_mesh(mesh):
        s = parameters.structure(small(vocab=151_936))
        places = s.abstract(mesh)
        params = {name: jax.device_put(a, places[name].sharding) for name, a in numbers(s.shapes).items()}

        @jax.jit
        def step(row):
            def loss(params):
                sums = s.model(params).losses(row, RUN)
                return sums.cross_entropy + 1e-4 * sums.z, sums.weight

            return jax.value_and_grad(loss, has_aux=True)(params)

        placed = [sharding.put_rows({name: a[None] for name, a in row.items()}, mesh) for row in rows]
        return [jax.tree.map(np.asarray, step(row)) for row in placed]


def row_of(examples, shape, tokenizer):
    row, failures = build_row(examples, shape, tokenizer, 4.0)
    assert failures == []
    return row


def shape_for(examples, shards):
    total = [sum(getattr(e, name) for e in examples) for name in ("n_tokens", "n_crops", "n_pooled")]
    return RowShape(even(total[0] + 5), even(total[1] + 1), 2 * total[2], shards)


def close(got, wanted, scales):
    for name, g in wanted.items():
        seen = [one[name[:-1] + "w"] if name in SILENT else one[name] for one in scales]
        np.testing.assert_allclose(got[name], g, rtol=0, atol=2e-5 * max(np.abs(x).max() for x in seen), err_msg=name)


def test_a_packed_row_teaches_what_its_examples_teach_alone(examples, tokenizer):
    shape = shape_for(examples, shards=1)
    rows = [row_of(some, shape, tokenizer) for some in (examples, *([example] for example in examples))]
    ((loss, weight), grads), *alone = teach(rows, context=1)
    assert weight == pytest.approx(sum(w for (_, w), _ in alone), rel=1e-6)
    assert loss == pytest.approx(sum(x for (x, _), _ in alone), rel=1e-5)
    assert len({round(float(x), 3) for (x, _), _ in alone}) == 3  # three examples, not one three times
    parts = [g for _, g in alone]
    close({name: sum(part[name] for part in parts) for name in grads}, grads, parts)


def test_vision_shards_on_two_devices_teach_what_one_device_does(examples, tokenizer):
    (((loss, weight), grads),) = teach([row_of(examples, shape_for(examples, shards=1), tokenizer)], context=1)
    cut = row_of(examples, shape_for(examples, shards=2), tokenizer)
    assert (cut["pooling"].max(axis=1) >= 0)[len(cut["pooling"]) // 2 :].any()  # the second shard holds something
    (((cut_loss, cut_weight), cut_grads),) = teach([cut], context=2)
    assert cut_loss == pytest.approx(loss, rel=1e-5) and cut_weight == pytest.approx(weight, rel=1e-5)
    close(cut_grads, grads, [grads])
