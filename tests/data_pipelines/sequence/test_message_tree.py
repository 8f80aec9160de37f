import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.records.annotations import AnyOf
from data_pipelines.sequence import message_tree
from data_pipelines.sequence.message_tree import ROOT
from tests.data_pipelines.sequence.trees import EOS, V, bodies, lay_out, owners, trees, turn


def test_two_branches_are_laid_out_as_in_the_public_reference():
    a, b, x, y, z, c, d, e, w = range(10, 19)
    got = lay_out([turn(ROOT, [a, b], [x, y, z]), turn(ROOT, [c, d, e], [w])])
    p, q = 2 / math.sqrt(4) / math.sqrt(2), 2 / math.sqrt(2) / math.sqrt(2)
    assert got.tokens.tolist() == [1, V, V, V, V, a, b, x, y, z, c, d, e, w]
    assert got.targets.tolist() == [V, V, V, V, a, b, x, y, z, 1, d, e, w, 1]
    assert got.positions.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5, 6, 7, 8]
    assert got.visible_until.tolist() == [14] * 5 + [10] * 5 + [14] * 4
    assert got.image_group.tolist() == [0, 1, 1, 1, 1] + [0] * 9
    assert got.visual_slots.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(got.loss_weights, [0] * 6 + [p] * 4 + [0] * 2 + [q] * 2, rtol=1e-6)
    dtypes = {f.name: getattr(got, f.name).dtype for f in dataclasses.fields(got)}
    assert dtypes.pop("loss_weights") == np.float32
    assert set(dtypes.values()) == {np.dtype(np.int32)}


def test_an_inner_answer_is_closed_by_an_eos_token_before_its_children():
    a, x, b, y, c, z = range(10, 16)
    got = lay_out([turn(ROOT, [a], [x]), turn(0, [b], [y]), turn(0, [c], [z])], n_visual=0)
    w = 2 / math.sqrt(2) / math.sqrt(3)
    assert got.tokens.tolist() == [1, a, x, 1, b, y, c, z]
    assert got.targets.tolist() == [a, x, 1, b, y, 1, z, 1]
    assert got.positions.tolist() == [0, 1, 2, 3, 4, 5, 4, 5]
    assert got.visible_until.tolist() == [8, 8, 8, 8, 6, 6, 8, 8]
    np.testing.assert_allclose(got.loss_weights, [0, w, w, 0, w, w, w, w], rtol=1e-6)


def test_a_prompt_has_no_loss():
    got = lay_out([turn(ROOT, [5, 6], None)])
    assert got.tokens.tolist() == [1, V, V, V, V, 5, 6]
    assert not got.loss_weights.any()


def test_a_visual_token_is_never_supervised():
    with pytest.raises(ValueError, match=r"image tokens \[99\] would be targets"):
        lay_out([turn(ROOT, [5], [6, V])])
    lay_out([turn(ROOT, [5, V], [6])])  # in a question it is only read


def test_an_example_without_turns_is_refused():
    with pytest.raises(ValueError, match="at least one turn"):
        lay_out([])


def test_turns_out_of_depth_first_order_are_refused():
    with pytest.raises(ValueError, match="turn 2 follows turn 0: turns are not depth first"):
        lay_out([turn(ROOT, [5], [6]), turn(ROOT, [5], [6]), turn(0, [5], [6])])


def ancestors(turns, node):
    """The node and all above it, from the root on."""
    return [ROOT] if node == ROOT else [*ancestors(turns, turns[node].parent), node]


@given(trees(), st.integers(0, 3))
def test_three_integers_say_what_the_tree_says(turns, n_visual):
    got = lay_out(turns, n_visual)
    body = bodies(turns, n_visual)
    owner = owners(turns, n_visual).tolist()
    assert got.tokens.tolist() == [token for node in [ROOT, *range(len(turns))] for token in body[node]]
    index = np.arange(len(owner))
    causal = (index[None] <= index[:, None]) & (index[:, None] < got.visible_until[None])
    same = (got.image_group[:, None] == got.image_group[None]) & (got.image_group[None] != 0)
    for q, node in enumerate(owner):
        above = ancestors(turns, node)
        for k, key in enumerate(owner):
            both_visual = 1 <= q <= n_visual and 1 <= k <= n_visual
            assert (causal | same)[q, k] == ((k <= q and key in above) or both_visual)


@given(trees(), st.integers(0, 3))
def test_a_path_through_the_tree_reads_as_if_it_were_alone(turns, n_visual):
    got = lay_out(turns, n_visual)
    owner = owners(turns, n_visual)
    leaves = set(range(len(turns))) - {t.parent for t in turns}
    for leaf in leaves:
        on_path = np.isin(owner, ancestors(turns, leaf))
        tokens = got.tokens[on_path]
        assert got.positions[on_path].tolist() == list(range(on_path.sum()))
        supervised = got.loss_weights[on_path] > 0
        assert (got.targets[on_path] == [*tokens[1:], EOS])[supervised].all()
        assert supervised[-1]
        assert supervised.sum() == sum(len(turns[n].answer) + 1 for n in ancestors(turns, leaf) if n != ROOT)


@dataclasses.dataclass(frozen=True)
class Node:
    name: str
    then: tuple = ()


def test_depth_first_keeps_subtrees_together_and_shuffles_siblings():
    nodes = (Node("A", (Node("C", (Node("E"),)), Node("D"))), Node("B"))
    seen = set()
    for seed in range(40):
        order = message_tree.depth_first(nodes, np.random.default_rng(seed))
        names = "".join(node.name for node, _ in order)
        parents = {node.name: order[parent][0].name if parent != ROOT else None for node, parent in order}
        assert parents == {"A": None, "B": None, "C": "A", "D": "A", "E": "C"}
        seen.add(names)
    assert seen == {"ACEDB", "ADCEB", "BACED", "BADCE"}


def test_of_several_messages_one_is_drawn_each_time():
    either = AnyOf((Node("A", (Node("C"),)), Node("B")))
    seen = {
        "".join(
            node.name
            for node, _ in message_tree.depth_first((either, Node("D", (either,))), np.random.default_rng(seed))
        )
        for seed in range(60)
    }
    assert seen == {"ACDAC", "ACDB", "BDAC", "BDB", "DACAC", "DACB", "DBAC", "DBB"}
    assert {
        node.name for seed in range(9) for node in message_tree.first_messages((either,), np.random.default_rng(seed))
    } == {
        "A",
        "B",
    }


def test_depth_is_not_limited_by_the_stack():
    node = Node("last")
    for _ in range(3000):
        node = Node("inner", (node,))
    order = message_tree.depth_first((node,), np.random.default_rng(0))
    got = lay_out([turn(parent, [5], [6]) for _, parent in order], n_visual=0)
    assert got.positions.tolist() == list(range(1 + 3000 * 3 + 2))


def test_turns_are_kept_while_they_fit():
    a, b, c = (turn(ROOT, [0] * n, [0] * n) for n in (2, 3, 1))
    assert message_tree.keep_fitting([a, b, c], 12) == [a, b, c]
    assert message_tree.keep_fitting([a, b, c], 11) == [a, b]
    assert message_tree.keep_fitting([a, b, c], 9) == [a, c]
    assert message_tree.keep_fitting([b, a, c], 3) == [c]
    assert message_tree.keep_fitting([a, b, c], 1) == []


def test_a_dropped_turn_takes_what_follows_it():
    turns = [
        turn(ROOT, [0] * 4, [0] * 4),
        turn(0, [0], [0]),
        turn(ROOT, [0], [0]),
        turn(2, [0], [0]),
    ]
    assert message_tree.keep_fitting(turns, 7) == [turns[2], dataclasses.replace(turns[3], parent=0)]
    # A child costs its tokens and the EOS that closes its parent.
    assert message_tree.keep_fitting([turns[2], dataclasses.replace(turns[3], parent=0)], 4) == [turns[2]]


@given(trees(), st.integers(0, 40))
def test_what_is_kept_fits(turns, room):
    kept = message_tree.keep_fitting(turns, room)
    if kept:
        assert len(lay_out(kept, 0).tokens) <= room + 1
    first = [len(t.user) + len(t.answer) for t in turns if t.parent == ROOT]
    assert bool(kept) == (min(first) <= room)


def sized(parent, tokens):
    return turn(parent, [0], [0] * (tokens - 1))


def test_branches_that_do_not_fit_together_are_split():
    five, four, three = sized(ROOT, 5), sized(ROOT, 4), sized(ROOT, 3)
    assert message_tree.split_fitting([five, four, three], 8) == [[five, three], [four]]
    assert message_tree.split_fitting([five, four, three], 12) == [[five, four, three]]
    assert message_tree.split_fitting([five, four, three], 4) == [[four], [three]]
    # 3 + 4 and the EOS between them are 8: a branch stays whole, and gets new indices in a part of its own.
    assert message_tree.split_fitting([three, three, sized(1, 4)], 8) == [[three], [three, sized(0, 4)]]
    assert message_tree.split_fitting([three, three, sized(1, 4)], 11) == [[three, three, sized(1, 4)]]


@given(trees(), st.integers(0, 40))
def test_a_split_keeps_what_fits_and_no_part_is_too_long(turns, room):
    parts = message_tree.split_fitting(turns, room)
    for part in parts:
        assert len(lay_out(part, 0).tokens) <= room + 1
    starts = [i for i, t in enumerate(turns) if t.parent == ROOT]
    kept = 0
    for start, stop in itertools.pairwise([*starts, len(turns)]):
        alone = [dataclasses.replace(t, parent=max(t.parent - start, ROOT)) for t in turns[start:stop]]
        kept += len(message_tree.keep_fitting(alone, room))
    assert sum(map(len, parts)) == kept
