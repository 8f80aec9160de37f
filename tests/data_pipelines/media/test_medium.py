"""Media are opened without decoding more than is needed; clips are inside their video."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import ExampleError, MediaError
from data_pipelines.media.location import InMemory, Location
from data_pipelines.media.medium import FramesMedium, ImageMedium, VideoMedium, open_image, open_video, video_medium
from tests.data_pipelines.media.videos import BIKES


@pytest.fixture
def photo(tmp_path):
    """A photo of 5 x 4 pixels."""
    Image.new("RGB", (5, 4), (9, 8, 7)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_open_video():
    location = Location.of(BIKES)
    assert open_video(location, None) == VideoMedium(location, 640, 272, 10.0, 0.0, 10.0, None)
    medium = open_video(location, (3.04, 7.44))
    assert (medium.start, medium.end, medium.size) == (3.04, 7.44, (640, 272))


def test_open_a_video_from_bytes():
    location = InMemory("upload.mp4", Path(BIKES).read_bytes())
    assert open_video(location, (1.0, 2.0)) == VideoMedium(location, 640, 272, 10.0, 1.0, 2.0, None)
    with pytest.raises(ExampleError, match=r"^upload\.mp4: clip \[1.0, 11.0\] is empty or not inside the video"):
        open_video(location, (1.0, 11.0))


@pytest.mark.parametrize("clip", [(-1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (2.0, 11.0), (float("nan"), 2.0)])
def test_a_clip_outside_its_video_raises(clip):
    with pytest.raises(ExampleError, match="is empty or not inside the video, which lasts 10 s") as refused:
        video_medium(Location.of(BIKES), (640, 272), 10.0, clip, None)
    assert refused.value.reason == "bad_time"


def test_open_image(photo):
    location = Location(str(photo.parent), "a.png")
    assert open_image(location) == ImageMedium(location, (5, 4))


def test_open_an_image_from_bytes(photo):
    location = InMemory("upload.png", photo.read_bytes())
    assert open_image(location) == ImageMedium(location, (5, 4))
    with pytest.raises(MediaError, match=r"^upload\.png: not an image"):
        open_image(InMemory("upload.png", photo.read_bytes()[:40]))


def test_frames_are_compared_by_identity():
    """Comparing the arrays element by element would make `==` ambiguous."""
    location, frames = InMemory("webcam", b""), np.zeros((2, 4, 6, 3), np.uint8)
    medium = FramesMedium(location, frames, (0.0, 0.5))
    assert medium == medium and medium != FramesMedium(location, frames, (0.0, 0.5))
