"""Plans: which pixels an example needs, as small values that can be sent to the process that decodes them.

    VideoPlan(Location(".", "bikes.mp4"), (3.04, 3.54, ... 7.44))     10 crops, 810 visual tokens
    ImagePlan(Location(".", "a.jpg"), (2, 2))                          5 crops, 725 visual tokens

This module imports neither grain nor jax, because decoding workers import it.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from data_pipelines.media import crops as crops_lib
from data_pipelines.media import image as image_lib
from data_pipelines.media import video as video_lib
from data_pipelines.media.location import InMemory, Location
from data_pipelines.media.pooling import frame_pooling, image_pooling
from data_pipelines.media.token_counts import TOKENS_PER_FRAME, token_grids

Units = tuple[tuple[int, int], ...]  # (crops, visual tokens) of each part that must stay on one device


class _Frames:
    """One crop and 81 visual tokens for each of `n_crops` frames."""

    @property
    def n_pooled(self) -> int:
        return TOKENS_PER_FRAME * self.n_crops

    @property
    def units(self) -> Units:
        return ((1, TOKENS_PER_FRAME),) * self.n_crops

    def pooling(self) -> np.ndarray:
        """int32[n_pooled, 9]: patch ids, relative to this medium's first crop."""
        return frame_pooling(self.n_crops)


@dataclasses.dataclass(frozen=True)
class VideoPlan(_Frames):
    """Frames to decode from a video. `times`: seconds of the video, ascending."""

    location: Location | InMemory
    times: tuple[float, ...]

    @property
    def n_crops(self) -> int:
        return len(self.times)

    def crops(self) -> Iterator[np.ndarray]:
        """n_crops crops, uint8[729, 588] each. Raises MediaError if the video cannot be decoded."""
        for frame in video_lib.decode_frames(self.location.source(), self.times):
            yield crops_lib.frame_crop(frame)


@dataclasses.dataclass(frozen=True, eq=False)
class FramesPlan(_Frames):
    """Decoded frames, uint8[T, H, W, 3]."""

    location: InMemory
    frames: np.ndarray

    @property
    def n_crops(self) -> int:
        return len(self.frames)

    def crops(self) -> Iterator[np.ndarray]:
        """n_crops crops, uint8[729, 588] each."""
        return map(crops_lib.frame_crop, self.frames)


@dataclasses.dataclass(frozen=True)
class ImagePlan:
    """An image as an overview and the crops of `crop_grid`. Tokens pool across these crops, so they are one unit."""

    location: Location | InMemory
    crop_grid: crops_lib.CropGrid

    @property
    def n_crops(self) -> int:
        rows, columns = self.crop_grid
        return 1 + rows * columns

    @property
    def n_pooled(self) -> int:
        return sum(rows * columns for rows, columns in token_grids(self.crop_grid))

    @property
    def units(self) -> Units:
        return ((self.n_crops, self.n_pooled),)

    def pooling(self) -> np.ndarray:
        """int32[n_pooled, 9]: patch ids, relative to this medium's first crop; -1 is padding."""
        return image_pooling(self.crop_grid)

    def crops(self) -> Iterator[np.ndarray]:
        """n_crops crops, uint8[729, 588] each, the overview first. Raises MediaError if the image cannot be read."""
        yield from crops_lib.image_crops(image_lib.load_image(self.location.source()), self.crop_grid)
