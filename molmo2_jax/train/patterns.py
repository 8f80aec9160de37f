"""Parameters sorted by name: each one matches exactly one pattern of a table in the config."""

import re
from collections.abc import Collection, Iterable, Mapping


def sort_names(names: Iterable[str], patterns: Mapping[str, str], what: str, idle: Collection[str] = ()) -> dict:
    """{name: the group whose regex matches the whole of it}.

        sort_names(["llm/head", "vit/patch/w"], {"llm": "llm/.*", "vit": "vit/.*"}, "optim")
        ->  {"llm/head": "llm", "vit/patch/w": "vit"}

    Args:
      what: the config key that complaints begin with.
      idle: groups that may match nothing.

    Raises:
      ValueError: a name matches no pattern or several, a pattern matches no name or is none.
    """
    compiled = {}
    for group, pattern in patterns.items():
        try:
            compiled[group] = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{what}: the pattern {pattern!r} of {group!r} is no regex: {error}") from error
    assigned = {}
    for name in names:
        hits = [group for group, pattern in compiled.items() if pattern.fullmatch(name)]
        if len(hits) != 1:
            raise ValueError(f"{what}: parameter {name!r} must match one group, it matches {hits or 'none'}")
        assigned[name] = hits[0]
    unused = [group for group in patterns if group not in assigned.values() and group not in idle]
    if unused:
        raise ValueError(f"{what}: groups {unused} match no parameter")
    return assigned
