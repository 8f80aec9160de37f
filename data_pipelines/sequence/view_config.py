"""What an example shows of its media: frames, crops, the text around them, and which visual tokens share a group."""

import dataclasses
from typing import Annotated

from data_pipelines.config import OneOf, at_least, more_than
from data_pipelines.media import frame_sampling

FRAME_TOKENS = {"im": ("<im_start>", "<im_end>"), "frame": ("<frame_start>", "<frame_end>")}
IMAGE_GROUPS = ("example", "frame")
TIMESTAMPS = {  # text before a frame, from its time (s) and its number (from 0)
    # A space precedes every timestamp except the first, as in the training of the released models.
    "per-frame-compact": lambda time, number: f"{time:.1f} " if number == 0 else f" {time:.1f} ",
    "per-frame": lambda time, number: f"time {time:.2f}",
    "numbered-frames": lambda time, number: f"{number + 1}:",
    "none": lambda time, number: "",
}
SUBTITLES = ("frame_1", "all", "ignore")


@dataclasses.dataclass(frozen=True)
class ViewConfig:
    """What an example shows of its media."""

    frame_sampling: Annotated[str, OneOf(frame_sampling.MODES)]  # media/frame_sampling.py draws each
    max_frames: Annotated[int, at_least(1)]  # frames sampled from one video
    fps: Annotated[float, more_than(0)]  # sampling rate of video frames, 1/s, until max_frames is reached
    timestamps: Annotated[str, OneOf(TIMESTAMPS)]  # text before each frame
    subtitles: Annotated[str, OneOf(SUBTITLES)]  # lines shown after a video's frames
    max_subtitle_tokens: Annotated[int, at_least(1)] | None  # lines beyond this are left out and counted
    max_crops: Annotated[int, at_least(1)]  # high-resolution crops of one image, not counting the overview
    high_res_crops: Annotated[int, at_least(1)]  # the same for images that a dataset's `high_res` draws
    max_images: Annotated[int, at_least(1)]  # images of one example
    frame_tokens: Annotated[str, OneOf(FRAME_TOKENS)]  # what wraps a frame; the released models use "im"
    image_groups: Annotated[str, OneOf(IMAGE_GROUPS)]  # which visual tokens see each other in both directions
