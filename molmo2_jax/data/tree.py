"""Message trees of any depth, laid out depth first as one sequence with positions, visibility, targets and weights.

An image of 4 visual tokens v, two branches A = ("ab" -> "xyz") and B = ("cde" -> "w"); 1 is both BOS and EOS:

    input          1  v v v v | a b x y z | c d e w
    target         v  v v v a | b x y z 1 | d e w 1
    position       0  1 2 3 4 | 5 6 7 8 9 | 5 6 7 8      a branch goes on from its parent's end, not its neighbour's
    visible_until 14 14 ...14 |10 ...   10|14 ... 14     the end of the token's subtree
    image_group    0  1 1 1 1 | 0 ...
    loss           0  0 0 0 0 | 0 p p p p | 0 0 q q      p = c/sqrt(4)/sqrt(2), q = c/sqrt(2)/sqrt(2)

A message that others follow is closed by an EOS input token, then they start; here A = ("a" -> "x") has the child
C = ("b" -> "y"), whose subtree ends where A's does:

    input     1 | a x 1 | b y
    target    a | x 1 b | y 1                            the 1 after x carries A's weight, the b after it none
    position  0 | 1 2 3 | 4 5

Source: arXiv 2601.10611 and its public code (depth 1); deeper trees and the sum of both weight factors are ours.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

import numpy as np

from molmo2_jax.data.annotations import AnyOf
from molmo2_jax.data.layout import VisualTokens


class _Node(Protocol):
    then: Sequence["_Node"]


Node = TypeVar("Node", bound=_Node)
ROOT = -1  # the parent of a first turn: BOS and the visual tokens, shared by everything


@dataclasses.dataclass(frozen=True)
class Turn:
    """A tokenised message. Turns come depth first; `parent` is the index of the turn this one follows, or ROOT.

    `answer` is without EOS; None where the model is to answer. `flat_weight` stands in for c/sqrt(n)/sqrt(branches)
    where it is not None; `factor` multiplies either.
    """

    parent: int
    user: Sequence[int]
    answer: Sequence[int] | None
    flat_weight: float | None
    factor: float


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleTokens:
    """One example as n tokens with g visual slots, relative to its own start; fields as in data/schema.py."""

    tokens: np.ndarray  # int32[n]
    targets: np.ndarray  # int32[n]
    loss_weights: np.ndarray  # float32[n]
    positions: np.ndarray  # int32[n]
    visible_until: np.ndarray  # int32[n]
    image_group: np.ndarray  # int32[n]
    visual_slots: np.ndarray  # int32[g]


def depth_first(messages: Sequence[Node], rng: np.random.Generator) -> list[tuple[Node, int]]:
    """Messages depth first with the place of each one's parent; siblings are in an order drawn from `rng`.

    A(C, D), B may come as  [(B, ROOT), (A, ROOT), (D, 1), (C, 1)]. Of several to choose from, one is drawn.
    """
    order: list[tuple[Node, int]] = []
    stack = [(node, ROOT) for node in _drawn(messages, rng)]
    while stack:
        node, parent = stack.pop()
        stack += [(child, len(order)) for child in _drawn(node.then, rng)]
        order.append((node, parent))
    return order


def _drawn(nodes: Sequence[Node], rng: np.random.Generator) -> list[Node]:
    nodes = first(nodes, rng)
    return [nodes[i] for i in rng.permutation(len(nodes))]


def first(messages: Sequence[Node], rng: np.random.Generator) -> list[Node]:
    """The first message of every branch, in the order given; of several to choose from, one is drawn."""
    return [node.choices[rng.integers(len(node.choices))] if isinstance(node, AnyOf) else node for node in messages]


def text_tokens(turns: Sequence[Turn]) -> int:
    """Tokens of turns in a sequence: their own, and an EOS after each that others follow."""
    inner = {turn.parent for turn in turns} - {ROOT}
    return sum(len(turn.user) + (0 if turn.answer is None else len(turn.answer)) for turn in turns) + len(inner)


def keep_fitting(turns: Sequence[Turn], room: int) -> list[Turn]:
    """The turns that fit in `room` tokens, taken in order; a turn goes with everything that follows it.

    A turn too long for what is left is passed over, and a shorter one after it may still be kept. So an example keeps
    at least one turn whenever any first turn fits alone, whatever the order drawn.
    """
    kept: list[Turn] = []
    place = {ROOT: ROOT}  # from places in `turns` to places in `kept`
    closed = {ROOT}  # kept turns that already pay for the EOS before their children; the root needs none
    for index, turn in enumerate(turns):
        if turn.parent not in place:
            continue
        parent = place[turn.parent]
        need = len(turn.user) + len(turn.answer) + (parent not in closed)
        if need > room:
            continue
        room -= need
        closed.add(parent)
        place[index] = len(kept)
        kept.append(dataclasses.replace(turn, parent=parent))
    return kept


def split_fitting(turns: Sequence[Turn], room: int) -> list[list[Turn]]:
    """The turns in parts of at most `room` tokens, each to stand below the same root; see `keep_fitting` for a part.

    Branches of 5, 4 and 3 tokens in a room of 8:  [[5, 3], [4]]. A branch goes whole to the first part that has room
    for it; turns are left out only where their own branch alone has no room for them.
    """
    starts = [index for index, turn in enumerate(turns) if turn.parent == ROOT]
    parts: list[list[Turn]] = []
    for start, stop in itertools.pairwise([*starts, len(turns)]):
        branch = keep_fitting(_moved(turns[start:stop], -start), room)
        if branch:
            need = text_tokens(branch)
            part = next((part for part in parts if text_tokens(part) + need <= room), None)
            if part is None:
                parts.append(branch)
            else:
                part += _moved(branch, len(part))
    return parts


def _moved(turns: Sequence[Turn], places: int) -> list[Turn]:
    """Turns of which all stand `places` further on in a list."""
    return [t if t.parent == ROOT else dataclasses.replace(t, parent=t.parent + places) for t in turns]


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

    `length_weight` is c of the token weight. Raises ValueError when turns are not depth first or a token of
    `never_targets` (the tokens that belong to images) would be learned.
    """
    if not turns:
        raise ValueError("an example needs at least one turn")
    _check_depth_first(turns)
    inner = {turn.parent for turn in turns}
    root_len = 1 + len(visual.tokens)
    seen = visual.tokens.tolist()
    tokens, targets, weights = [bos, *seen], [*seen, turns[0].user[0]], [0.0] * root_len
    starts, position_of = [], {ROOT: root_len}  # position_of: where the children of a turn go on
    positions = list(range(root_len))
    for index, turn in enumerate(turns):
        body = [*turn.user, *(() if turn.answer is None else turn.answer), *([eos] if index in inner else [])]
        # A turn with children is followed by the first of them; with others of them too, but none of these is learned.
        follower = turns[index + 1].user[0] if index in inner else eos
        starts.append(len(tokens))
        first = position_of[turn.parent]
        positions += range(first, first + len(body))
        position_of[index] = first + len(body)
        tokens += body
        targets += [*body[1:], follower]
        weights += _turn_weights(turn, len(body), len(turns), length_weight)
    learned = {target for target, weight in zip(targets, weights, strict=True) if weight > 0}
    if not learned.isdisjoint(never_targets):
        raise ValueError(f"image tokens {sorted(learned & set(never_targets))} would be targets of the loss")
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


def turn_weight(targets: int, branches: int, length_weight: float) -> float:
    """Weight of one answer target: c/sqrt(n)/sqrt(branches), n the answer's targets with EOS, branches the turns kept.

    Counting turns as branches is the paper's count at depth 1, and gives a chain of k answers of n tokens each what
    the paper gives one branch of k*n answer tokens: 1/sqrt(n)/sqrt(k) = 1/sqrt(k*n).
    """
    return length_weight / math.sqrt(targets) / math.sqrt(branches)


def _turn_weights(turn: Turn, body: int, branches: int, length_weight: float) -> list[float]:
    """Weights of a turn's `body` tokens: the answer's targets start at the last user token and end with EOS."""
    if turn.answer is None:
        return [0.0] * body
    n = len(turn.answer) + 1
    weight = turn_weight(n, branches, length_weight) if turn.flat_weight is None else turn.flat_weight
    weight *= turn.factor
    before = len(turn.user) - 1
    return [0.0] * before + [weight] * n + [0.0] * (body - before - n)


def _visible_until(root_len: int, starts: list[int], end: int, turns: Sequence[Turn]) -> np.ndarray:
    """The end of each token's subtree, int32[n]."""
    ends = [*starts[1:], end]
    lengths = [stop - start for start, stop in zip(starts, ends, strict=True)]
    for index in reversed(range(len(turns))):  # children before parents, as they come later
        if turns[index].parent != ROOT:
            ends[turns[index].parent] = max(ends[turns[index].parent], ends[index])
    return np.repeat(np.array([end, *ends], np.int32), [root_len, *lengths])


def _check_depth_first(turns: Sequence[Turn]) -> None:
    """Raise ValueError unless every turn follows the turn before it or one of that turn's ancestors (or the root)."""
    path: list[int] = []
    for index, turn in enumerate(turns):
        while path and path[-1] != turn.parent:
            path.pop()
        if turn.parent != ROOT and not path:
            raise ValueError(f"turn {index} follows turn {turn.parent}: turns are not depth first")
        path.append(index)
