"""The times at which a video is sampled, in seconds since the start of the clip.

    uniform_last_frame    every 1/fps s from the start, and the end; if these are more than max_frames, max_frames
                          evenly spaced times from the start to the end
    uniform               max_frames evenly spaced times, without the end
    scenes                the start of every scene, then the middles of the longest gaps, up to max_frames
    frame_rates           if a medium has these: the grid on which objects were annotated, whatever the mode

Source: public reference video_loader.py (all except "scenes").
"""

import numpy as np

from data_pipelines.media import video as video_lib
from data_pipelines.media.medium import VideoMedium

MODES = ("uniform_last_frame", "uniform", "scenes")


def frame_times(medium: VideoMedium, mode: str, max_frames: int, fps: float) -> np.ndarray:
    """Times at which to sample a video: float64[T], ascending, in seconds since the start of the clip.

    Args:
      mode: one of MODES. A medium with `frame_rates` is sampled at one of these rates in every mode.
      fps: frames per second.

    Raises:
      MediaError: the mode is "scenes" and the video cannot be decoded.
    """
    duration = medium.end - medium.start
    if medium.frame_rates is not None:
        return sample_annotated_grid(duration, max_frames, medium.frame_rates)
    if mode == "scenes":
        starts = video_lib.scene_starts(medium.location.source(), medium.start, medium.end)
        return fill_gaps(starts - medium.start, duration, max_frames, fps)
    sample = uniform if mode == "uniform" else uniform_last_frame
    return sample(duration, max_frames, fps)


def uniform_last_frame(duration: float, max_frames: int, fps: float) -> np.ndarray:
    """`fps` times per second and the end, at most `max_frames` times.

    uniform_last_frame(1.9, 4, 1.0)    ->  [0, 1, 1.9]
    uniform_last_frame(3.0, 4, 1.0)    ->  [0, 1, 2, 3]
    uniform_last_frame(3.001, 4, 1.0)  ->  4 evenly spaced times from 0 to 3.001
    """
    if not (duration > 0 and max_frames >= 1 and fps > 0):
        raise ValueError(f"duration {duration}, max_frames {max_frames} and fps {fps} must be positive")
    if (max_frames - 1) / fps < duration:
        return np.linspace(0.0, duration, max_frames)
    grid = np.arange(max_frames - 1) / fps
    return np.append(grid[grid < duration], float(duration))


def uniform(duration: float, max_frames: int, fps: float) -> np.ndarray:
    """`max_frames` evenly spaced times without the end, for every `fps`: (8.0, 4, 2.0) -> [0, 2, 4, 6]."""
    if not (duration > 0 and max_frames >= 1):
        raise ValueError(f"duration {duration} and max_frames {max_frames} must be positive")
    return np.linspace(0.0, duration, max_frames, endpoint=False)


def sample_annotated_grid(duration: float, max_frames: int, rates: tuple[float, ...]) -> np.ndarray:
    """Times at the highest of `rates` (1/s, ascending) that covers the clip with `max_frames`, else at the lowest.

    A clip of 10 s, 25 frames, rates (1, 2, 3)  ->  0, 0.5, ... 9.5. A clip that is too long even for the lowest rate is
    sampled up to `max_frames`; prompts do not ask about later annotations.
    """
    if not (duration > 0 and max_frames >= 1 and rates and min(rates) > 0):
        raise ValueError(f"duration {duration}, max_frames {max_frames} and rates {rates} must be positive")
    rate = max((r for r in rates if max_frames / r >= duration), default=rates[0])
    grid = np.arange(max_frames) / rate
    return grid[grid < duration]


def fill_gaps(starts: np.ndarray, duration: float, max_frames: int, fps: float) -> np.ndarray:
    """`starts` of scenes (at most `max_frames` of them, evenly selected) and the middles of the longest gaps.

    fill_gaps([0, 7], 8.0, 4, 2.0)  ->  [0, 1.75, 3.5, 7]    up to max_frames times, or until no gap exceeds 1/fps
    """
    if len(starts) >= max_frames:
        return starts[np.linspace(0, len(starts) - 1, max_frames).round().astype(int)]
    times = sorted(starts.tolist())
    while len(times) < max_frames:
        gaps = np.diff([*times, duration])
        longest = int(gaps.argmax())
        if gaps[longest] <= 1 / fps:
            break
        times.insert(longest + 1, times[longest] + gaps[longest] / 2)
    return np.array(times)
