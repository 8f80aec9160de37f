"""Tracks as text: where objects are over time."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class TrackFrame:
    """The objects visible at `time` seconds: object id -> (x, y), fractions of the frame's width and height."""

    time: float
    points: Mapping[str, tuple[float, float]]
