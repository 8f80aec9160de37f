"""Configs as dataclasses: read from nested mappings, each value checked against what its field declares.

A config class is a frozen dataclass without defaults. What a value may be is declared once, on the field it restricts:

    @dataclasses.dataclass(frozen=True)
    class LoaderConfig:
        overflow: Annotated[str, OneOf(("split", "drop"))]
        workers: Annotated[int, at_least(0)]

    read_config(LoaderConfig, {"overflow": "drop", "workers": -1}, "loader")
      ->  ConfigError: loader.workers = -1 must be at least 0
"""

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any


class ConfigError(ValueError):
    """A config value or a flag that cannot be used. The message names the key."""


class OneOf:
    """A field's value is one of `values`, a collection of strings (the keys of a mapping, for example)."""

    def __init__(self, values: Collection[str]):
        self.values = tuple(values)

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`; None if nothing is."""
        return None if value in self.values else f"is unknown; known: {', '.join(sorted(self.values))}"


@dataclasses.dataclass(frozen=True)
class Range:
    """A field's value is a finite number from `low` to `high`; above `low` where `exclusive`."""

    low: float
    high: float = math.inf
    exclusive: bool = False

    def problem(self, value: float) -> str | None:
        """What is wrong with `value`; None if nothing is."""
        if not math.isfinite(value):
            return "must be finite"
        if self.low <= value <= self.high and not (self.exclusive and value == self.low):
            return None
        most = "" if math.isinf(self.high) else f", at most {self.high}"
        return f"must be {'more than' if self.exclusive else 'at least'} {self.low}{most}"


def at_least(low: float) -> Range:
    """Numbers >= `low`."""
    return Range(low)


def more_than(low: float) -> Range:
    """Numbers > `low`."""
    return Range(low, exclusive=True)


def between(low: float, high: float) -> Range:
    """Numbers in [`low`, `high`]."""
    return Range(low, high)


def read_config(kind: type, tree: Mapping[str, Any], path: str) -> Any:
    """A nested mapping (ml_collections' `to_dict()`, or JSON) as an instance of the dataclass `kind`.

    Raises:
      ConfigError: a key is unknown or missing, or a value has the wrong type or is out of range. The message names
        each key by its whole path, which begins with `path`.
    """
    config = _build(kind, tree, path)
    check_config(config, path)
    return config


def check_config(config: Any, path: str) -> None:
    """Check every value of a config dataclass against its field.

    Raises:
      ConfigError: values are out of range or not among the choices; the message lists all of them.
    """
    problems = [f"{key} = {value!r} {problem}" for key, value, problem in _problems(type(config), config, path)]
    if problems:
        raise ConfigError("; ".join(problems))


def _build(hint: Any, x: Any, path: str) -> Any:
    """`x` as what `hint` says: a dataclass, dict[str, K], tuple[K, ...] or a plain type; None where hinted."""
    kind, _, optional = _parse_hint(hint)
    if x is None and optional:
        return None
    container = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(x, Mapping):
        hints = dict(_field_hints(kind))
        wrong = [f"{path}.{key} is unknown" for key in x if key not in hints]
        wrong += [f"{path}.{key} is missing" for key in hints if key not in x]
        if wrong:
            raise ConfigError("; ".join(wrong))
        return kind(**{key: _build(hints[key], x[key], f"{path}.{key}") for key in hints})
    if container is dict and isinstance(x, Mapping):
        return {key: _build(_item_hint(kind), value, f"{path}.{key}") for key, value in x.items()}
    if container is tuple and isinstance(x, list | tuple):  # JSON has lists only
        return tuple(_build(_item_hint(kind), value, f"{path}[{i}]") for i, value in enumerate(x))
    if kind is float and type(x) is int:
        return float(x)
    if type(x) is not kind:  # exactly: True is not an int
        name = str(kind) if container else kind.__name__
        raise ConfigError(f"{path} = {x!r} must be of type {name}{' or None' if optional else ''}")
    return x


def _problems(hint: Any, value: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """(key, value, what is wrong) of every value that its field does not allow."""
    kind, rules, _ = _parse_hint(hint)
    if value is None:
        return
    for rule in rules:
        if (problem := rule.problem(value)) is not None:
            yield path, value, problem
    if dataclasses.is_dataclass(kind):
        for key, field_hint in _field_hints(kind):
            yield from _problems(field_hint, getattr(value, key), f"{path}.{key}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _problems(_item_hint(kind), item, f"{path}.{key}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _problems(_item_hint(kind), item, f"{path}[{i}]")


def _parse_hint(hint: Any) -> tuple[Any, list[OneOf | Range], bool]:
    """(type, rules, whether None is allowed) of a type hint.

    Annotated[int, rule] -> (int, [rule], False); Annotated[int, rule] | None -> (int, [rule], True).
    """
    if typing.get_origin(hint) is typing.Annotated:
        inner, *rules = typing.get_args(hint)
        kind, inner_rules, optional = _parse_hint(inner)
        return kind, inner_rules + rules, optional
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (inner,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)  # only K | None is supported
        kind, rules, _ = _parse_hint(inner)
        return kind, rules, True
    return hint, [], False


def _field_hints(kind: type) -> list[tuple[str, Any]]:
    """(name, type hint) of each field of a dataclass."""
    return list(typing.get_type_hints(kind, include_extras=True).items())


def _item_hint(kind: Any) -> Any:
    """K of dict[str, K] and of tuple[K, ...]; None for other types."""
    items = {dict: 1, tuple: 0}
    container = typing.get_origin(kind)
    return typing.get_args(kind)[items[container]] if container in items else None
