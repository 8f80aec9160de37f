"""The times at which frames are sampled."""

from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.media.frame_sampling import (
    MODES,
    fill_gaps,
    frame_times,
    sample_annotated_grid,
    uniform,
    uniform_last_frame,
)
from data_pipelines.media.location import Location
from data_pipelines.media.medium import open_video


@pytest.mark.parametrize(
    "duration, expected",
    [
        (1.9, [0, 1, 1.9]),
        (3.0, [0, 1, 2, 3]),
        (3.001, [0, 3.001 / 3, 2 * 3.001 / 3, 3.001]),
        (0.5, [0, 0.5]),
        (1.0, [0, 1]),
        (300.0, [0, 100, 200, 300]),
    ],
)
def test_the_last_frame_is_always_sampled(duration, expected):
    times = uniform_last_frame(duration, 4, 1.0)
    assert times.dtype == np.float64
    np.testing.assert_allclose(times, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "duration, max_frames, count", [(10, 128, 21), (63.5, 128, 128), (600, 128, 128), (191.5, 384, 384)]
)
def test_number_of_frames_in_the_recipe(duration, max_frames, count):
    assert len(uniform_last_frame(duration, max_frames, 2.0)) == count


def test_one_frame_is_the_first():
    assert uniform_last_frame(5.0, 1, 2.0).tolist() == [0.0]


@given(st.floats(0.01, 5000), st.integers(2, 400), st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.3, 30.0]))
def test_frame_times_are_few_ascending_and_end_at_the_end(duration, max_frames, fps):
    times = uniform_last_frame(duration, max_frames, fps)
    assert 2 <= len(times) <= max_frames
    assert (times[0], times[-1]) == (0.0, duration)
    assert (np.diff(times) > 0).all()
    if (max_frames - 1) / fps >= duration:
        assert np.diff(times).max() <= 1 / fps + 1e-9
    else:
        assert len(times) == max_frames


@pytest.mark.parametrize("bad", [(0.0, 4, 1.0), (1.0, 0, 1.0), (1.0, 4, 0.0), (float("nan"), 4, 1.0)])
def test_frame_times_of_an_empty_clip_raise(bad):
    with pytest.raises(ValueError, match="must be positive"):
        uniform_last_frame(*bad)


def test_uniform_excludes_the_end():
    assert uniform(8.0, 4, 2.0).tolist() == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="must be positive"):
        uniform(0.0, 4, 2.0)


@pytest.mark.parametrize(
    ("duration", "max_frames", "rates", "rate", "count"),
    [
        (10.0, 128, (1, 2, 3, 6), 6, 60),
        (10.0, 25, (1, 2, 3, 6), 2, 20),
        (10.0, 10, (1, 2), 1, 10),
        (10.0, 8, (1, 2), 1, 8),  # longer than 8 frames at the lowest rate: cut
        (9.8, 128, (1,), 1, 10),
    ],
)
def test_annotated_grids_are_sampled(duration, max_frames, rates, rate, count):
    np.testing.assert_allclose(sample_annotated_grid(duration, max_frames, rates), np.arange(count) / rate)


def test_the_rates_of_a_medium_override_the_mode(street_video):
    medium = open_video(Location.of(street_video), (1.0, 3.0))
    assert frame_times(medium, "uniform_last_frame", 8, 2.0).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert frame_times(medium, "uniform", 4, 2.0).tolist() == [0.0, 0.5, 1.0, 1.5]
    tracked = SimpleNamespace(start=1.0, end=3.0, frame_rates=(1.0, 2.0))
    for mode in MODES:
        assert frame_times(tracked, mode, 8, 2.0).tolist() == [0.0, 0.5, 1.0, 1.5]


@pytest.fixture
def three_scenes(tmp_path):
    """Six seconds: red, then green from 2 s on, then blue from 5 s on."""
    path = tmp_path / "scenes.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=10)
        stream.width = stream.height = 64
        for number in range(60):
            color = [(200, 20, 20), (20, 200, 20), (20, 20, 220)][(number >= 20) + (number >= 50)]
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), color, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def test_every_scene_has_its_first_frame(three_scenes):
    whole = open_video(Location.of(three_scenes), None)
    times = frame_times(whole, "scenes", 3, 2.0)
    np.testing.assert_allclose(times, [0.0, 2.0, 5.0], atol=0.1)
    filled = frame_times(whole, "scenes", 6, 2.0)
    assert len(filled) == 6 and set(times.round(1)) <= set(filled.round(1))
    assert (np.diff(filled) > 0).all()
    part = open_video(Location.of(three_scenes), (1.0, 4.0))
    np.testing.assert_allclose(frame_times(part, "scenes", 2, 2.0), [0.0, 1.0], atol=0.1)


def test_the_longest_gaps_are_filled_first():
    assert fill_gaps(np.array([0.0, 7.0]), 8.0, 4, 2.0).tolist() == [0.0, 1.75, 3.5, 7.0]
    assert fill_gaps(np.array([0.0]), 1.0, 9, 2.0).tolist() == [0.0, 0.5]  # no gap longer than half a second is left
    assert fill_gaps(np.arange(10.0), 10.0, 4, 2.0).tolist() == [0, 3, 6, 9]
