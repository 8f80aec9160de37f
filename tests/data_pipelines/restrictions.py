"""What the fields of a config class allow, so that tests can try values on both sides of every limit."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from data_pipelines import config
from data_pipelines.config import OneOf, Range


def restrictions(kind: type, path: str) -> dict[str, OneOf | Range]:
    """What each key of a config class may be: {"config.data.loader.workers": Range(0), ...}.

    `*` stands for any name of a dict and any index of a tuple: "config.groups.*.rate".
    """
    return dict(_restrictions(kind, path))


def _restrictions(hint: Any, path: str) -> Iterator[tuple[str, OneOf | Range]]:
    kind, rules, _ = config._parse_hint(hint)
    for rule in rules:
        yield path, rule
    if dataclasses.is_dataclass(kind):
        for key, field_hint in config._field_hints(kind):
            yield from _restrictions(field_hint, f"{path}.{key}")
    elif (item := config._item_hint(kind)) is not None:
        yield from _restrictions(item, f"{path}.*")
