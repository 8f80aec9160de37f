"""Message trees of any depth, laid out depth first as one sequence with positions, visibility, targets and weights.

An image of 4 visual tokens v, two branches A = ("ab" -> "xyz") and B = ("cde" -> "w"); 1 is both BOS and EOS:

    input          1  v v v v | a b x y z | c d e w
    target         v  v v v a | b x y z 1 | d e w 1
    position       0  1 2 3 4 | 5 6 7 8 9 | 5 6 7 8      a branch continues from the end of its parent, not of A
    visible_until 14 14 ...14 |10 ...   10|14 ... 14     the end of the token's subtree
    image_group    0  1 1 1 1 | 0 ...
    loss           0  0 0 0 0 | 0 p p p p | 0 0 q q      p = c/sqrt(4)/sqrt(2), q = c/sqrt(2)/sqrt(2)

An EOS input token closes a message that has children; then they start. Here A = ("a" -> "x") has the child
C = ("b" -> "y"), whose subtree ends where that of A does:

    input     1 | a x 1 | b y
    target    a | x 1 b | y 1                            the target 1 has the weight of A, the target b none
    position  0 | 1 2 3 | 4 5

Source: arXiv 2601.10611 and its public code (depth 1); deeper trees and the product of both weight factors are ours.
"""

import dataclasses
import itertools
from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

import numpy as np

from data_pipelines.records.annotations import AnyOf
from data_pipelines.sequence import token_weights
from data_pipelines.sequence.visual_layout import VisualTokens


class _Node(Protocol):
    then: Sequence["_Node"]


Node = TypeVar("Node", bound=_Node)
ROOT = -1  # the parent of a first turn: BOS and the visual tokens, which all turns share


@dataclasses.dataclass(frozen=True)
class Turn:
    """A tokenised message. Turns come depth first; `parent` is the index of the turn this one follows, or ROOT.

    `answer` has no EOS; it is None in a prompt for the model to answer. `flat_weight`, if not None, replaces
    c/sqrt(n)/sqrt(branches) as the weight of each answer token; `factor` multiplies either.
    """

    parent: int
    user: Sequence[int]
    answer: Sequence[int] | None
    flat_weight: float | None
    factor: float


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleTokens:
    """One example as n tokens with g visual slots, relative to its own start; fields as in packing/schema.py."""

    tokens: np.ndarray  # int32[n]
    targets: np.ndarray  # int32[n]
    loss_weights: np.ndarray  # float32[n]
    positions: np.ndarray  # int32[n]
    visible_until: np.ndarray  # int32[n]
    image_group: np.ndarray  # int32[n]
    visual_slots: np.ndarray  # int32[g]


def depth_first(messages: Sequence[Node], rng: np.random.Generator) -> list[tuple[Node, int]]:
    """Messages depth first, each with the index of its parent; `rng` draws the order of siblings.

    A(C, D), B may become  [(B, ROOT), (A, ROOT), (D, 1), (C, 1)]. Of the messages of an AnyOf, one is drawn.
    """
    order: list[tuple[Node, int]] = []
    stack = [(node, ROOT) for node in _draw_siblings(messages, rng)]
    while stack:
        node, parent = stack.pop()
        stack += [(child, len(order)) for child in _draw_siblings(node.then, rng)]
        order.append((node, parent))
    return order


def _draw_siblings(nodes: Sequence[Node], rng: np.random.Generator) -> list[Node]:
    nodes = first_messages(nodes, rng)
    return [nodes[i] for i in rng.permutation(len(nodes))]


def first_messages(messages: Sequence[Node], rng: np.random.Generator) -> list[Node]:
    """The first message of every branch, in the order given; of the messages of an AnyOf, one is drawn."""
    return [node.choices[rng.integers(len(node.choices))] if isinstance(node, AnyOf) else node for node in messages]


def text_tokens(turns: Sequence[Turn]) -> int:
    """Number of tokens of turns in a sequence: their own, and an EOS for each turn that has children."""
    inner = {turn.parent for turn in turns} - {ROOT}
    return sum(len(turn.user) + (0 if turn.answer is None else len(turn.answer)) for turn in turns) + len(inner)


def keep_fitting(turns: Sequence[Turn], room: int) -> list[Turn]:
    """The turns that fit in `room` tokens, taken in order. A turn is dropped together with all its descendants.

    A turn too long for the remaining room is skipped, and a shorter one after it may still be kept. So at least one
    turn is kept whenever any first turn fits alone, in whatever order they come.
    """
    kept: list[Turn] = []
    kept_index = {ROOT: ROOT}  # index in `turns` -> index in `kept`
    closed = {ROOT}  # kept turns whose EOS before their children is counted already; the root needs none
    for index, turn in enumerate(turns):
        if turn.parent not in kept_index:
            continue
        parent = kept_index[turn.parent]
        need = len(turn.user) + len(turn.answer) + (parent not in closed)
        if need > room:
            continue
        room -= need
        closed.add(parent)
        kept_index[index] = len(kept)
        kept.append(dataclasses.replace(turn, parent=parent))
    return kept


def split_fitting(turns: Sequence[Turn], room: int) -> list[list[Turn]]:
    """The turns in parts of at most `room` tokens, each part a tree below the same root.

    Branches of 5, 4 and 3 tokens in a room of 8:  [[5, 3], [4]]. A whole branch goes to the first part that has room
    for it. A branch longer than `room` is cut by `keep_fitting`; no other turns are dropped.
    """
    starts = [index for index, turn in enumerate(turns) if turn.parent == ROOT]
    parts: list[list[Turn]] = []
    for start, stop in itertools.pairwise([*starts, len(turns)]):
        branch = keep_fitting(_shift_parents(turns[start:stop], -start), room)
        if branch:
            need = text_tokens(branch)
            part = next((part for part in parts if text_tokens(part) + need <= room), None)
            if part is None:
                parts.append(branch)
            else:
                part += _shift_parents(branch, len(part))
    return parts


def _shift_parents(turns: Sequence[Turn], offset: int) -> list[Turn]:
    """The turns for a list in which all of them are `offset` further on."""
    return [t if t.parent == ROOT else dataclasses.replace(t, parent=t.parent + offset) for t in turns]


def lay_out(
    visual: VisualTokens,
    turns: Sequence[Turn],
    *,
    bos: int,
    eos: int,
    length_weight: float,
    never_targets: Collection[int],
) -> ExampleTokens:
    """BOS, the visual tokens and the turns as one sequence; see the pictures above.

    Args:
      length_weight: c of the token weight.
      never_targets: special tokens of images, which the loss must not train.

    Raises:
      ValueError: turns are not depth first, or a token of `never_targets` is a target with weight.
    """
    if not turns:
        raise ValueError("an example needs at least one turn")
    _check_depth_first(turns)
    inner = {turn.parent for turn in turns}
    root_len = 1 + len(visual.tokens)
    visual_ids = visual.tokens.tolist()
    tokens, targets, weights = [bos, *visual_ids], [*visual_ids, turns[0].user[0]], [0.0] * root_len
    starts, next_position = [], {ROOT: root_len}  # next_position: of a turn's children
    positions = list(range(root_len))
    for index, turn in enumerate(turns):
        body = [*turn.user, *(() if turn.answer is None else turn.answer), *([eos] if index in inner else [])]
        # The last target of a turn with children is the first token of one of them; it has no weight.
        follower = turns[index + 1].user[0] if index in inner else eos
        starts.append(len(tokens))
        first = next_position[turn.parent]
        positions += range(first, first + len(body))
        next_position[index] = first + len(body)
        tokens += body
        targets += [*body[1:], follower]
        weights += _turn_weights(turn, len(body), len(turns), length_weight)
    supervised = {target for target, weight in zip(targets, weights, strict=True) if weight > 0}
    if not supervised.isdisjoint(never_targets):
        raise ValueError(f"image tokens {sorted(supervised & set(never_targets))} would be targets of the loss")
    text = len(tokens) - root_len
    return ExampleTokens(
        tokens=np.array(tokens, np.int32),
        targets=np.array(targets, np.int32),
        loss_weights=np.array(weights, np.float32),
        positions=np.array(positions, np.int32),
        visible_until=_visible_until(root_len, starts, len(tokens), turns),
        image_group=np.concatenate([[0], visual.image_group, np.zeros(text)]).astype(np.int32),
        visual_slots=(1 + visual.slots).astype(np.int32),
    )


def _turn_weights(turn: Turn, body: int, branches: int, length_weight: float) -> list[float]:
    """Weights of the `body` tokens of a turn: the answer's targets start at the last user token and end with EOS."""
    if turn.answer is None:
        return [0.0] * body
    n = len(turn.answer) + 1
    weight = token_weights.length_weight(n, branches, length_weight) if turn.flat_weight is None else turn.flat_weight
    weight *= turn.factor
    before = len(turn.user) - 1
    return [0.0] * before + [weight] * n + [0.0] * (body - before - n)


def _visible_until(root_len: int, starts: list[int], end: int, turns: Sequence[Turn]) -> np.ndarray:
    """The end of each token's subtree, int32[n]."""
    ends = [*starts[1:], end]
    lengths = [stop - start for start, stop in zip(starts, ends, strict=True)]
    for index in reversed(range(len(turns))):  # children before their parents
        if turns[index].parent != ROOT:
            ends[turns[index].parent] = max(ends[turns[index].parent], ends[index])
    return np.repeat(np.array([end, *ends], np.int32), [root_len, *lengths])


def _check_depth_first(turns: Sequence[Turn]) -> None:
    """Raises ValueError unless every turn follows the turn before it, one of that turn's ancestors, or the root."""
    path: list[int] = []
    for index, turn in enumerate(turns):
        while path and path[-1] != turn.parent:
            path.pop()
        if turn.parent != ROOT and not path:
            raise ValueError(f"turn {index} follows turn {turn.parent}: turns are not depth first")
        path.append(index)
