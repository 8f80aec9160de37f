"""Which moments of a video are shown, in seconds since the clip's start.

    uniform_last_frame    a frame every 1/fps s from the start, and the last one; if that is more than max_frames, as
                          many as that spread evenly over the clip, both ends included
    uniform               max_frames spread evenly, the end left out
    scenes                the first frame of every scene, then moments between them until max_frames are spread well
    frame_rates           of a medium: frames on the grid on which objects were annotated, whatever the config says

Source: public reference video_loader.py (all but "scenes").
"""

from typing import Protocol

import numpy as np

from molmo2_jax.data import video as video_lib
from molmo2_jax.data.media import VideoMedium


class SamplingConfig(Protocol):
    """`frame_sampling` is a key of MODES; `fps` in 1/s."""

    frame_sampling: str
    max_frames: int
    fps: float


def frame_times(medium: VideoMedium, cfg: SamplingConfig) -> np.ndarray:
    """Times (seconds since the clip's start, float64[T], ascending) at which to sample a video.

    Raises MediaError where scenes are wanted of a video that cannot be decoded.
    """
    duration = medium.end - medium.start
    if medium.frame_rates is not None:
        return on_grid(duration, cfg.max_frames, medium.frame_rates)
    if cfg.frame_sampling == "scenes":
        starts = video_lib.scene_starts(medium.location.source(), medium.start, medium.end)
        return spread(starts - medium.start, duration, cfg.max_frames, cfg.fps)
    return MODES[cfg.frame_sampling](duration, cfg.max_frames, cfg.fps)


def uniform_last_frame(duration: float, max_frames: int, fps: float) -> np.ndarray:
    """`fps` a second and the end, at most `max_frames`.

    uniform_last_frame(1.9, 4, 1.0)    ->  [0, 1, 1.9]
    uniform_last_frame(3.0, 4, 1.0)    ->  [0, 1, 2, 3]
    uniform_last_frame(3.001, 4, 1.0)  ->  4 times spread evenly from 0 to 3.001
    """
    if not (duration > 0 and max_frames >= 1 and fps > 0):
        raise ValueError(f"duration {duration}, max_frames {max_frames} and fps {fps} must be positive")
    if (max_frames - 1) / fps < duration:
        return np.linspace(0.0, duration, max_frames)
    grid = np.arange(max_frames - 1) / fps
    return np.append(grid[grid < duration], float(duration))


def uniform(duration: float, max_frames: int, fps: float) -> np.ndarray:
    """`max_frames` spread evenly, the end left out, whatever `fps`: (8.0, 4, 2.0) -> [0, 2, 4, 6]."""
    if not (duration > 0 and max_frames >= 1):
        raise ValueError(f"duration {duration} and max_frames {max_frames} must be positive")
    return np.linspace(0.0, duration, max_frames, endpoint=False)


MODES = {"uniform_last_frame": uniform_last_frame, "uniform": uniform}


def on_grid(duration: float, max_frames: int, rates: tuple[float, ...]) -> np.ndarray:
    """Frames at the highest of `rates` (1/s, ascending) that shows the whole clip in `max_frames`, else at the lowest.

    A clip of 10 s, 25 frames, rates (1, 2, 3)  ->  0, 0.5, ... 9.5. What is longer than max_frames at the lowest rate
    is shown up to there: its annotations behind are not asked for.
    """
    if not (duration > 0 and max_frames >= 1 and rates and min(rates) > 0):
        raise ValueError(f"duration {duration}, max_frames {max_frames} and rates {rates} must be positive")
    rate = max((r for r in rates if max_frames / r >= duration), default=rates[0])
    grid = np.arange(max_frames) / rate
    return grid[grid < duration]


def spread(starts: np.ndarray, duration: float, max_frames: int, fps: float) -> np.ndarray:
    """`starts` of scenes (at most `max_frames` of them, evenly chosen), and moments halfway through the longest gaps.

    spread([0, 7], 8.0, 4, 2.0)  ->  [0, 1.75, 3.5, 7]    until max_frames are there or no gap is longer than 1/fps
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
