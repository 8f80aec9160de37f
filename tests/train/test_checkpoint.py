import json

import grain
import jax
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import params as parameters
from molmo2_jax.train import checkpoint, optim
from molmo2_jax.train.config import CheckpointConfig
from molmo2_jax.train.param_files import ParamFiles
from molmo2_jax.train.step import abstract_state, make_state
from tests.models.small import KINDS, numbers
from tests.train.small_run import config

ONE, EIGHT = (1, 1, 1, 1), (2, 2, 1, 2)


def setting(sizes):
    """(mesh, structure, groups, optimizer, a state with numbers in it)."""
    devices = jax.devices()[: int(np.prod(sizes))]
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), devices)
    c = config().optim
    with jax.set_mesh(mesh):
        s = parameters.structure(KINDS["qwen3_tied"])
        assigned = optim.assign_groups(s.shapes, c)
        optimizer = optim.make_optimizer(c, assigned, 10)
        abstract = s.abstract(mesh)
        values = {n: jax.device_put(x, abstract[n].sharding) for n, x in numbers(s.shapes).items()}
        state = make_state(values, assigned, optimizer)
        moved = jax.tree.map(lambda x: x + 1 if x.ndim else x, state.optimizer)
        wanted = abstract_state(s, mesh, assigned, optimizer)
    return mesh, s, wanted, state._replace(step=state.step + 3, optimizer=moved)


class Data(grain.DatasetIterator):
    """A loader of one row: its state is where the row stands."""

    def __init__(self):
        super().__init__()
        self._at = 0

    def __next__(self):
        self._at += 1
        return self._at - 1

    def get_state(self):
        return {"rows": {"0": {"window": self._at, "row": 0}}, "counts": {}}

    def set_state(self, state):
        self._at = state["rows"]["0"]["window"]


def data_iterator():
    return Data()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with steps 3, 4, 5 saved and two kept, from eight devices; and the state of step 3."""
    workdir = tmp_path_factory.mktemp("saved")
    mesh, s, _, state = setting(EIGHT)
    data = data_iterator()
    with jax.set_mesh(mesh):
        store = checkpoint.Checkpoints(workdir, CheckpointConfig(every=1, keep=2))
        for step in (3, 4, 5):
            next(data)
            store.save(state._replace(step=jax.numpy.int32(step)), data, config(), s.config)
        store.close()
    return workdir, jax.tree.map(np.asarray, state)


def test_the_newest_are_kept_and_found(saved):
    workdir, _ = saved
    assert sorted(d.name for d in (workdir / "checkpoints").iterdir()) == ["4", "5"]
    step = checkpoint.newest_step(workdir)
    assert step.name == "5" and checkpoint.load_config(step)["data"]["pool"] == 3
    assert checkpoint.newest_step(workdir / "checkpoints" / "4").name == "4"
    assert checkpoint.has_step(workdir)
    assert checkpoint.load_architecture(step) == setting(ONE)[1].config


@pytest.mark.parametrize("sizes", [ONE, EIGHT])
def test_a_state_comes_back_bit_equal_on_any_mesh(saved, sizes):
    workdir, want = saved
    mesh, s, wanted, _ = setting(sizes)
    data = data_iterator()
    with jax.set_mesh(mesh):
        store = checkpoint.Checkpoints(workdir, CheckpointConfig(every=1, keep=2))
        state, changed = store.restore(wanted, data, config(steps=99), s.config)
        store.close()
    assert int(state.step) == 5 and changed == ["steps: 10 -> 99"] and next(data) == 3
    for a, b, w in zip(*(jax.tree.leaves(t) for t in (state[1:], want[1:], wanted[1:])), strict=True):
        np.testing.assert_array_equal(np.asarray(a), b)
        assert a.dtype == b.dtype and a.sharding == w.sharding


def test_parameters_load_without_the_optimizer(saved):
    workdir, want = saved
    mesh, s, _, _ = setting(ONE)
    with jax.set_mesh(mesh):
        params = checkpoint.load_params(workdir / "checkpoints" / "5", s, mesh)
    assert params.keys() == s.shapes.keys()
    for name, x in (want.trainable | want.frozen).items():
        np.testing.assert_array_equal(np.asarray(params[name]), x)


def test_parameters_are_read_a_layer_at_a_time_without_the_devices_they_were_saved_from(saved):
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
        with pytest.raises(checkpoint.CheckpointError, match=r"llm\.tied: True -> False"):
            checkpoint.load_params(workdir / "checkpoints" / "5", other, mesh)


def test_a_folder_without_a_finished_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no finished checkpoint"):
        checkpoint.newest_step(tmp_path)
    assert not checkpoint.has_step(tmp_path)


def test_the_saved_config_reads_back_as_the_config(saved):
    from molmo2_jax.train.config import read

    tree = json.loads((saved[0] / "checkpoints" / "5" / "config" / "metadata").read_text())
    assert read(tree) == config()
