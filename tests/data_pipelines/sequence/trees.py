"""Trees of turns for tests, drawn and laid out."""

import numpy as np
from hypothesis import strategies as st

from data_pipelines.sequence import message_tree
from data_pipelines.sequence.message_tree import ROOT
from data_pipelines.sequence.visual_layout import VisualTokens

BOS = EOS = 1
V = 99  # a visual token


def turn(parent, user, answer, flat_weight=None, factor=1.0):
    return message_tree.Turn(parent, user, answer, flat_weight, factor)


def visual(n):
    return VisualTokens(np.full(n, V, np.int32), np.arange(n, dtype=np.int32), np.ones(n, np.int32))


def lay_out(turns, n_visual=4, length_weight=2.0):
    return message_tree.lay_out(
        visual(n_visual), turns, bos=BOS, eos=EOS, length_weight=length_weight, never_targets={V}
    )


@st.composite
def trees(draw):
    """Turns depth first: the depth of each is at most one more than that of the turn before."""
    turns, path = [], []
    for _ in range(draw(st.integers(1, 9))):
        depth = draw(st.integers(0, len(path)))
        parent = path[depth - 1] if depth else ROOT
        user = draw(st.lists(st.integers(10, 60), min_size=1, max_size=3))
        answer = draw(st.lists(st.integers(10, 60), min_size=0, max_size=4))
        path = [*path[:depth], len(turns)]
        flat_weight, factor = draw(st.sampled_from([None, 0.1])), draw(st.sampled_from([1.0, 0.5]))
        turns.append(turn(parent, user, answer, flat_weight, factor))
    return turns


def bodies(turns, n_visual):
    """Tokens of each node, written from the definition."""
    found = {ROOT: [BOS] + [V] * n_visual}
    for i, t in enumerate(turns):
        found[i] = t.user + t.answer + ([EOS] if any(other.parent == i for other in turns) else [])
    return found


def owners(turns, n_visual):
    """The node of each token, int[n]."""
    body = bodies(turns, n_visual)
    return np.array([node for node in [ROOT, *range(len(turns))] for _ in body[node]])
