"""Points as published tables have them, {"x": 10.5, "y": 20.0}, in percent of the frame's width and height."""

from collections.abc import Mapping

from data_pipelines.records.problems import is_number
from data_pipelines.text.point_tag import PERCENT
from data_pipelines.text.points import Point


def is_percent_point(point: object) -> bool:
    """Whether `point` is a mapping with finite numbers x and y."""
    return isinstance(point, Mapping) and all(is_number(point.get(axis)) for axis in ("x", "y"))


def in_frame(point: Mapping[str, float]) -> bool:
    """Whether x and y are from 0 to 100."""
    return all(0 <= point[axis] <= PERCENT for axis in ("x", "y"))


def clamp_to_frame(point: Mapping[str, float]) -> dict[str, float]:
    """The nearest point inside the frame: {"x": -0.2, "y": 50.0} -> {"x": 0, "y": 50.0}."""
    return {axis: min(max(point[axis], 0), PERCENT) for axis in ("x", "y")}


def point_from_percent(key: float | int, point: Mapping[str, float]) -> Point:
    """The annotation, in fractions: (2.5, {"x": 10.5, "y": 20.0}) -> Point(2.5, 0.105, 0.2). `key`: as in Point."""
    return Point(key, point["x"] / PERCENT, point["y"] / PERCENT)
