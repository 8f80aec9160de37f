"""Plans: which pixels an example needs, as values small enough to send to the process that decodes them.

    VideoPlan(Location(".", "bikes.mp4"), (3.04, 3.54, ... 7.44))     10 crops, 810 pooled tokens
    ImagePlan(Location(".", "a.jpg"), (2, 2))                          5 crops, 725 pooled tokens

Nothing here needs grain or jax: worker processes import it.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from molmo2_jax.data import image as image_lib
from molmo2_jax.data import video as video_lib
from molmo2_jax.data import views as views_lib
from molmo2_jax.data.media import Location

Units = tuple[tuple[int, int], ...]  # (crops, pooled tokens) of each piece that has to stay together


@dataclasses.dataclass(frozen=True)
class VideoPlan:
    """Frames to take from a video: one crop and 81 pooled tokens each. `times` are seconds of the video, ascending."""

    location: Location
    times: tuple[float, ...]

    @property
    def n_crops(self) -> int:
        return len(self.times)

    @property
    def n_pooled(self) -> int:
        return views_lib.FRAME_SLOTS * len(self.times)

    @property
    def units(self) -> Units:
        return ((1, views_lib.FRAME_SLOTS),) * len(self.times)

    def pooling(self) -> np.ndarray:
        """int32[n_pooled, 9], patch ids counted from this medium's first crop."""
        return views_lib.frame_pooling(len(self.times))

    def views(self) -> Iterator[np.ndarray]:
        """n_crops crops, uint8[729, 588] each. Raises MediaError when the video cannot be decoded."""
        for frame in video_lib.decode_frames(self.location.source(), self.times):
            yield views_lib.frame_view(frame)


@dataclasses.dataclass(frozen=True)
class ImagePlan:
    """An image cut into an overview and the crops of `tiling`, which pool each other's patches: one unit."""

    location: Location
    tiling: views_lib.Tiling

    @property
    def n_crops(self) -> int:
        rows, columns = self.tiling
        return 1 + rows * columns

    @property
    def n_pooled(self) -> int:
        return sum(rows * columns for rows, columns in views_lib.image_grid(self.tiling))

    @property
    def units(self) -> Units:
        return ((self.n_crops, self.n_pooled),)

    def pooling(self) -> np.ndarray:
        """int32[n_pooled, 9], patch ids counted from this medium's first crop, -1 absent."""
        return views_lib.image_pooling(self.tiling)

    def views(self) -> Iterator[np.ndarray]:
        """n_crops crops, uint8[729, 588] each, the overview first. Raises MediaError when the image cannot be read."""
        yield from views_lib.image_views(image_lib.load_image(self.location.source()), self.tiling)
