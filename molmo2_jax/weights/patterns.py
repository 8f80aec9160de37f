"""Assigning parameters to groups by name: each name matches exactly one regex of a table in the config."""

import re
from collections.abc import Collection, Iterable, Mapping


def assign_by_pattern(
    names: Iterable[str], patterns: Mapping[str, str], key: str, may_be_empty: Collection[str] = ()
) -> dict[str, str]:
    """{name: the group whose regex matches the whole name}.

        assign_by_pattern(["llm/head", "vit/patch/w"], {"llm": "llm/.*", "vit": "vit/.*"}, "optim")
        ->  {"llm/head": "llm", "vit/patch/w": "vit"}

    Args:
      key: the config key that errors begin with.
      may_be_empty: groups that may match nothing.

    Raises:
      ValueError: a name matches no pattern or several, a pattern matches no name or is not a regex.
    """
    compiled = {}
    for group, pattern in patterns.items():
        try:
            compiled[group] = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{key}: the pattern {pattern!r} of {group!r} is not a regex: {error}") from error
    assigned = {}
    for name in names:
        hits = [group for group, pattern in compiled.items() if pattern.fullmatch(name)]
        if len(hits) != 1:
            raise ValueError(f"{key}: parameter {name!r} must match one group, it matches {hits or 'none'}")
        assigned[name] = hits[0]
    unused = [group for group in patterns if group not in assigned.values() and group not in may_be_empty]
    if unused:
        raise ValueError(f"{key}: groups {unused} match no parameter")
    return assigned
