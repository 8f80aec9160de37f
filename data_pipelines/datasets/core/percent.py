"""Points as published tables have them, {"x": 10.5, "y": 20.0}, in percent of the frame's width and height."""

from collections.abc import Mapping

from data_pipelines.records.problems import is_number
from data_pipelines.text.points import Point


def is_percent_point(place: object) -> bool:
    """Whether it has an x and a y, both finite numbers."""
    return isinstance(place, Mapping) and all(is_number(place.get(axis)) for axis in ("x", "y"))


def in_frame(place: Mapping[str, float]) -> bool:
    """Whether both are from 0 to 100."""
    return all(0 <= place[axis] <= 100 for axis in ("x", "y"))


def clamp_to_frame(place: Mapping[str, float]) -> dict[str, float]:
    """The nearest point inside the frame: {"x": -0.2, "y": 50.0} -> {"x": 0, "y": 50.0}."""
    return {axis: min(max(place[axis], 0), 100) for axis in ("x", "y")}


def point_from_percent(key: float | int, place: Mapping[str, float]) -> Point:
    """The annotation, in fractions: (2.5, {"x": 10.5, "y": 20.0}) -> Point(2.5, 0.105, 0.2). `key`: as in Point."""
    return Point(key, place["x"] / 100, place["y"] / 100)
