"""Fitting an example to the budgets of a row: whole, split over several rows, or with some branches dropped.

overflow   an example of 3 branches, 2 of which fit next to its video
"split"    two examples: the video with two branches, and the same video with the third
"drop"     one example without the third branch, which is counted as dropped
"""

import dataclasses

from data_pipelines.packing.schema import RowShape
from data_pipelines.packing.vision_shards import assign
from data_pipelines.records.problems import RecordError
from data_pipelines.sequence import message_tree
from data_pipelines.sequence.example import Example

OVERFLOW = ("split", "drop")  # what happens to branches that do not fit


def fit_to_row(example: Example, shape: RowShape, shards: int, overflow: str) -> list[Example]:
    """The example as one or several that each fit a row; `overflow` is one of OVERFLOW.

    A message that fits no row next to the media is dropped with all its follow-ups, and counted in `dropped`.

    Raises:
      RecordError: the media exceed a budget, or no message fits next to them.
    """
    media_tokens = 1 + example.visual.n_tokens
    shortest = min(len(turn.user) + len(turn.answer) for turn in example.turns if turn.parent == message_tree.ROOT)
    _check_budgets(example, media_tokens + shortest, shape, shards)
    room = shape.seq_len - media_tokens
    if overflow == "split":
        parts = message_tree.split_fitting(example.turns, room)
    else:
        parts = [message_tree.keep_fitting(example.turns, room)]
    dropped = example.dropped + len(example.turns) - sum(map(len, parts))
    return [
        dataclasses.replace(example, turns=tuple(part), dropped=dropped if number == 0 else 0, part=number)
        for number, part in enumerate(parts)
    ]


def _check_budgets(example: Example, tokens: int, shape: RowShape, shards: int) -> None:
    """Raises RecordError where a row cannot hold the media and the shortest message, which need `tokens`."""
    needs = [
        ("too_long", "tokens for its media and shortest message", tokens, "seq_len", shape.seq_len),
        ("too_many_crops", "crops", example.n_crops, "crops", shape.crops),
        ("too_many_crops", "visual tokens", example.n_pooled, "pooled", shape.pooled),
    ]
    over = [
        (reason, f"{example.where}: needs {need} {what}, a row has {key} = {budget}")
        for reason, what, need, key, budget in needs
        if need > budget
    ]
    if over:
        raise RecordError([text for _, text in over], over[0][0])
    if shards > 1 and assign(example.units, shape, shards) is None:
        crops = max(c for c, _ in example.units)
        raise RecordError(
            [f"{example.where}: its images of up to {crops} crops do not fit {shards} vision shards"], "too_many_crops"
        )
