"""The experiment that validates the mask, as a test: real clips, the whole model, exact zeros."""

import jax
import numpy as np
import pytest

from molmo2_jax.train.config import read
from molmo2_jax.train.setup import open_data, set_up
from molmo2_jax.viewer.branch_gradients import GradientTable, gradient_tables
from molmo2_jax.viewer.page import unbatch
from tests.molmo2_jax.train.recipe import experiment


@pytest.fixture(scope="module")
def mask_experiment():
    """(config tree, the row) of experiments/validate_message_mask.py."""
    tree = experiment("validate_message_mask").to_dict()
    return tree, unbatch(open_data(read(tree)).first_batch(seed=0, rows=1, streams=1))


@pytest.mark.parametrize("attention", ["dense", "blockwise"])
def test_no_gradient_crosses_from_branch_to_branch(mask_experiment, attention):
    tree, rows = mask_experiment
    config = read(tree | {"model": tree["model"] | {"attention": attention}})
    (table,) = gradient_tables(set_up(config, jax.devices()[:1]), rows, seed=config.seed)
    # Two examples: a video with two questions, and one with a question that has two follow-ups, and two more.
    assert sorted(name[2:] for name in table.names) == ["A", "A", "A.1", "A.2", "B", "B", "C", "root", "root"]
    assert len(table.losses) == 7 and table.leaks() == []
    for i, row in zip(table.losses, table.largest, strict=True):
        example = table.names[i][0]
        for name, value in zip(table.names, row, strict=True):
            if name == table.names[i] or name == f"{example} root":
                assert value > 1e-4  # the branch itself, and the video that branches share
            elif not (table.names[i][2:].startswith("A.") and name == f"{example} A"):
                assert value == 0


def table(largest):
    visible = np.array([[True, True, False], [True, False, True]])
    return GradientTable(["0 root", "0 A", "0 B"], [1, 2], visible, np.array(largest, np.float32))


def test_a_leak_of_any_size_is_named_and_so_is_a_missing_gradient():
    assert table([[1, 1, 0], [1, 0, 1]]).leaks() == []
    assert table([[1, 1, 1e-30], [0, 0, 1]]).leaks() == ["0 A -> 0 B", "0 B -> 0 root"]


def test_the_table_is_text_and_marks_leaks_on_the_page():
    leaky = table([[0.25, 1, 1e-30], [1, 0, 1]])
    assert leaky.text().splitlines()[1].split() == ["0", "A", "2e-01", "1e+00", "1e-30"]
    assert leaky.html().count('class="leak"') == 1 and leaky.html().count('class="hidden"') == 1
