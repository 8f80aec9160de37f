"""Plans know what they cost, travel between processes, and decode to as many views as they said."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from molmo2_jax.data.media import Location
from molmo2_jax.data.plan import ImagePlan, VideoPlan
from molmo2_jax.data.video import decode_frames
from molmo2_jax.data.views import frame_pooling, frame_view, image_pooling
from tests.data.videos import BIKES


def test_a_video_plan():
    plan = VideoPlan(Location.of(BIKES), (3.04, 3.54, 7.44))
    assert (plan.n_crops, plan.n_pooled) == (3, 243)
    assert plan.units == ((1, 81), (1, 81), (1, 81))
    np.testing.assert_array_equal(plan.pooling(), frame_pooling(3))
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    frames = decode_frames(BIKES, plan.times)
    for view, frame in zip(again.views(), frames, strict=True):
        np.testing.assert_array_equal(view, frame_view(frame))


@pytest.mark.parametrize("tiling, crops, pooled", [((1, 1), 2, 392), ((2, 2), 5, 725), ((24, 1), 25, 3444)])
def test_an_image_plan_is_one_unit(tmp_path, tiling, crops, pooled):
    plan = ImagePlan(Location.of("a.png"), tiling)
    assert (plan.n_crops, plan.n_pooled, plan.units) == (crops, pooled, ((crops, pooled),))
    np.testing.assert_array_equal(plan.pooling(), image_pooling(tiling))


def test_workers_need_neither_grain_nor_jax():
    heavy = ("jax", "grain", "tokenizers", "torch")
    code = f"import sys, molmo2_jax.data.plan\nprint([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
