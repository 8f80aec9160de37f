"""Random packed rows for the tests of masks and attention: trees of any depth, text examples, images, padding."""

import dataclasses

import numpy as np
from hypothesis import strategies as st


@dataclasses.dataclass
class Rows:
    """`until` and `group` int32[B, S] as the data side makes them, and a naive `allowed` bool[B, S, S]."""

    until: np.ndarray
    group: np.ndarray
    allowed: np.ndarray


@st.composite
def node(draw, depth: int):
    """(tokens of the node, children)."""
    size = draw(st.integers(1, 6))
    children = draw(st.lists(node(depth - 1), max_size=3)) if depth else []
    return size, children


@st.composite
def example(draw):
    """(sizes of the root's images, whether they share one group, the root node)."""
    images = draw(st.lists(st.integers(1, 6), max_size=3))
    return images, draw(st.booleans()), draw(node(draw(st.integers(0, 3))))


def _lay_out(images, shared, root):
    """[(path of the token's node, group)] of each token, depth first; groups count from 1 within the example."""
    tokens = []
    for number, size in enumerate(images):
        tokens.append(((), 0))  # a timestamp between the images: root text
        tokens += [((), 1 if shared else number + 1)] * size

    def walk(path, tree):
        size, children = tree
        tokens.extend([(path, 0)] * size)
        for i, child in enumerate(children):
            walk((*path, i), child)

    walk((), root)
    return tokens


def _fill(until, group, allowed, start, tokens, first_group):
    """Writes one example's integers, and `allowed` by a comparison of paths."""
    n = len(tokens)
    for i, (path, g) in enumerate(tokens):
        inside = [j for j in range(n) if tokens[j][0][: len(path)] == path]
        until[start + i] = start + max(inside) + 1
        group[start + i] = first_group + g if g else 0
        for j, (other, h) in enumerate(tokens):
            causal = j <= i and path[: len(other)] == other
            allowed[start + i, start + j] = causal or (g == h != 0)


@st.composite
def rows(draw, batch: int = 2, length: int = 48):
    """`batch` packed rows of `length` tokens; examples that do not fit are skipped, the rest is padding."""
    until, group = np.zeros((2, batch, length), np.int32)
    allowed = np.zeros((batch, length, length), bool)
    for b in range(batch):
        start, groups = 0, 0
        for images, shared, root in draw(st.lists(example(), max_size=4)):
            tokens = _lay_out(images, shared, root)
            if start + len(tokens) > length:
                continue
            _fill(until[b], group[b], allowed[b], start, tokens, groups)
            start, groups = start + len(tokens), groups + len(images)
    return Rows(until, group, allowed)
