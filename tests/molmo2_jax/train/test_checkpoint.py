import json
import re

import grain
import jax
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import structure as parameters
from molmo2_jax.train.checkpoint import CheckpointConfig, Checkpoints
from molmo2_jax.train.config import read
from molmo2_jax.train.optimizer import make_optimizer
from molmo2_jax.train.parameter_groups import assign_groups
from molmo2_jax.train.step import abstract_state, make_state
from molmo2_jax.weights import checkpoint_files
from molmo2_jax.weights.checkpoint_files import CheckpointError, to_json
from molmo2_jax.weights.orbax_files import ParamFiles
from tests.molmo2_jax.models.small import KINDS, random_weights
from tests.molmo2_jax.train.small_run import config

ONE, EIGHT = (1, 1, 1, 1), (2, 2, 1, 2)


def setting(sizes):
    """(mesh, structure, abstract state, state at step 3) on the first devices."""
    devices = jax.devices()[: int(np.prod(sizes))]
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), devices)
    c = config().optim
    with jax.set_mesh(mesh):
        s = parameters.structure(KINDS["qwen3_tied"])
        assigned = assign_groups(s.shapes, c.groups, c.frozen)
        optimizer = make_optimizer(c, assigned, 10)
        abstract = s.abstract(mesh)
        values = {n: jax.device_put(x, abstract[n].sharding) for n, x in random_weights(s.shapes).items()}
        state = make_state(values, assigned, optimizer)
        moved = jax.tree.map(lambda x: x + 1 if x.ndim else x, state.optimizer)
        expected = abstract_state(s, mesh, assigned, optimizer)
    return mesh, s, expected, state._replace(step=state.step + 3, optimizer=moved)


class Data(grain.DatasetIterator):
    """A loader of one row, whose state is its position."""

    def __init__(self):
        super().__init__()
        self._position = 0

    def __next__(self):
        self._position += 1
        return self._position - 1

    def get_state(self):
        return {"rows": {"0": {"window": self._position, "row": 0}}, "counts": {}}

    def set_state(self, state):
        self._position = state["rows"]["0"]["window"]


def open_checkpoints(workdir, architecture, **changes):
    return Checkpoints(workdir, CheckpointConfig(every=1, keep=2), to_json(config(**changes)), architecture)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with steps 3, 4, 5 saved and two kept, from eight devices; and the state of step 3."""
    workdir = tmp_path_factory.mktemp("saved")
    mesh, s, _, state = setting(EIGHT)
    data = Data()
    with jax.set_mesh(mesh):
        store = open_checkpoints(workdir, s.config)
        for step in (3, 4, 5):
            next(data)
            store.save(state._replace(step=jax.numpy.int32(step)), data)
        store.close()
    return workdir, jax.tree.map(np.asarray, state)


def test_the_newest_are_kept_and_found(saved):
    workdir, _ = saved
    assert sorted(d.name for d in (workdir / "checkpoints").iterdir()) == ["4", "5"]
    step = checkpoint_files.newest_step(workdir)
    assert step.name == "5" and checkpoint_files.load_config(step)["data"]["loader"]["pool"] == 3
    assert checkpoint_files.newest_step(workdir / "checkpoints" / "4").name == "4"
    assert checkpoint_files.has_step(workdir)
    assert checkpoint_files.load_architecture(step) == setting(ONE)[1].config


@pytest.mark.parametrize("sizes", [ONE, EIGHT])
def test_a_state_comes_back_bit_equal_on_any_mesh(saved, sizes):
    workdir, want = saved
    mesh, s, expected, _ = setting(sizes)
    data = Data()
    with jax.set_mesh(mesh):
        store = open_checkpoints(workdir, s.config, steps=99)
        state, changed = store.restore(expected, data)
        store.close()
    assert int(state.step) == 5 and changed == ["steps: 10 -> 99"] and next(data) == 3
    for a, b, e in zip(*(jax.tree.leaves(t) for t in (state[1:], want[1:], expected[1:])), strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)
        assert a.dtype == b.dtype and a.sharding == e.sharding


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 4}, "batch: 2 -> 4"),
        ({"seed": 2}, "seed: 1 -> 2"),
        ({"data__loader__overflow": "split"}, "data.loader.overflow: drop -> split"),
        ({"data__mixture__groups__street__rate": 2.0}, "data.mixture.groups.street.rate: 1.0 -> 2.0"),
        ({"optim__frozen": "llm/embed/.*"}, "optim.frozen: llm/embed/base -> llm/embed/.*"),
    ],
)
def test_a_state_does_not_come_back_under_a_config_that_changes_its_meaning(saved, changes, message):
    mesh, s, expected, _ = setting(ONE)
    with jax.set_mesh(mesh):
        store = open_checkpoints(saved[0], s.config, **changes)
        with pytest.raises(
            CheckpointError, match=rf"checkpoints/5: .* changed {re.escape(message)} \(saved -> config\)"
        ):
            store.restore(expected, Data())
        store.close()


def test_a_step_that_is_saved_already_is_not_saved_again(saved):
    workdir, _ = saved
    mesh, s, _, state = setting(ONE)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    with jax.set_mesh(mesh):
        store = open_checkpoints(workdir, s.config)
        store.save(state._replace(step=jax.numpy.int32(5)), Data())
        store.close()
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_parameters_load_without_the_optimizer(saved):
    workdir, want = saved
    mesh, s, _, _ = setting(ONE)
    with jax.set_mesh(mesh):
        params = checkpoint_files.load_params(workdir / "checkpoints" / "5", s, mesh)
    assert params.keys() == s.shapes.keys()
    for name, x in (want.trainable | want.frozen).items():
        np.testing.assert_array_equal(np.asarray(params[name]), x)


def test_parameters_are_read_one_layer_at_a_time_without_the_devices_they_were_saved_from(saved):
    workdir, want = saved
    files = ParamFiles(workdir / "checkpoints" / "5" / "params")
    for name, x in (want.trainable | want.frozen).items():
        for layer in range(len(x)) if "/blocks/" in name else (None,):
            np.testing.assert_array_equal(files.read(name, layer), x if layer is None else x[layer])


def test_another_architecture_is_refused_by_the_keys_that_differ(saved):
    workdir, _ = saved
    mesh = setting(ONE)[0]
    with jax.set_mesh(mesh):
        other = parameters.structure(KINDS["qwen3_untied"])
        with pytest.raises(CheckpointError, match=r"llm\.tied: True -> False"):
            checkpoint_files.load_params(workdir / "checkpoints" / "5", other, mesh)


def test_a_folder_without_a_finished_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no finished checkpoint"):
        checkpoint_files.newest_step(tmp_path)
    assert not checkpoint_files.has_step(tmp_path)


def test_the_saved_config_reads_back_as_the_config(saved):
    tree = json.loads((saved[0] / "checkpoints" / "5" / "config" / "metadata").read_text())
    assert read(tree) == config()
