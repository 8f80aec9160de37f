"""STANDIN."""

from molmo2_jax.data import video as video_lib


def frame_times(medium, cfg):
    """Stand-in."""
    return video_lib.frame_times(medium.end - medium.start, cfg.max_frames, cfg.fps)
