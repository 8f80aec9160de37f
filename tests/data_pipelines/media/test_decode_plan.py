"""Plans know their cost, can be sent between processes, and give the number of crops that they state."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines.media.crops import frame_crop, image_crops
from data_pipelines.media.decode_plan import FramesPlan, ImagePlan, VideoPlan
from data_pipelines.media.image import load_image
from data_pipelines.media.location import InMemory, Location
from data_pipelines.media.pooling import frame_pooling, image_pooling
from data_pipelines.media.video import decode_frames
from tests.data_pipelines.media.videos import BIKES


def test_a_video_plan():
    plan = VideoPlan(Location.of(BIKES), (3.04, 3.54, 7.44))
    assert (plan.n_crops, plan.n_pooled) == (3, 243)
    assert plan.units == ((1, 81), (1, 81), (1, 81))
    np.testing.assert_array_equal(plan.pooling(), frame_pooling(3))
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    frames = decode_frames(BIKES, plan.times)
    for crop, frame in zip(again.crops(), frames, strict=True):
        np.testing.assert_array_equal(crop, frame_crop(frame))


def test_a_plan_of_decoded_frames_equals_that_of_the_video():
    """Frames that are decoded already give the crops, units and pooling of a video sampled at their times."""
    video = VideoPlan(Location.of(BIKES), (0.0, 2.5, 9.0))
    plan = FramesPlan(InMemory("webcam", b""), np.stack(list(decode_frames(BIKES, video.times))))
    assert (plan.n_crops, plan.n_pooled, plan.units) == (video.n_crops, video.n_pooled, video.units)
    np.testing.assert_array_equal(plan.pooling(), video.pooling())
    crops = list(plan.crops())
    assert len(crops) == 3 and all(crop.shape == (729, 588) and crop.dtype == np.uint8 for crop in crops)
    np.testing.assert_array_equal(crops, list(video.crops()))
    np.testing.assert_array_equal(list(plan.crops()), crops)  # a plan can be decoded again


def test_a_plan_of_decoded_frames_is_pickled():
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    plan = pickle.loads(pickle.dumps(FramesPlan(InMemory("webcam", b""), frames)))
    assert str(plan.location) == "webcam"
    np.testing.assert_array_equal(list(plan.crops()), [frame_crop(frame) for frame in frames])


@pytest.mark.parametrize("crop_grid, crops, pooled", [((1, 1), 2, 392), ((2, 2), 5, 725), ((24, 1), 25, 3444)])
def test_an_image_plan_is_one_unit(tmp_path, crop_grid, crops, pooled):
    plan = ImagePlan(Location.of("a.png"), crop_grid)
    assert (plan.n_crops, plan.n_pooled, plan.units) == (crops, pooled, ((crops, pooled),))
    np.testing.assert_array_equal(plan.pooling(), image_pooling(crop_grid))


def test_an_image_plan_reads_bytes(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    plan = ImagePlan(InMemory("upload.png", (tmp_path / "a.png").read_bytes()), (1, 2))
    crops = list(plan.crops())
    assert len(crops) == plan.n_crops == 3
    np.testing.assert_array_equal(crops, image_crops(load_image(tmp_path / "a.png"), (1, 2)))


def test_workers_need_neither_grain_nor_jax():
    heavy = ("jax", "grain", "tokenizers", "torch")
    code = f"import sys, data_pipelines.media.decode_plan\nprint([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
