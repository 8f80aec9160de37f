import contextlib
import json

import grain
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from molmo2_jax import sharding
from molmo2_jax.models import structure as parameters
from molmo2_jax.train import checkpoint
from molmo2_jax.train.checkpoint import CheckpointConfig
from molmo2_jax.train.step import State
from molmo2_jax.weights import orbax_files
from molmo2_jax.weights.checkpoint_files import CheckpointError, load_params, save_architecture, to_json
from molmo2_jax.weights.orbax_files import ParamFiles, write_params
from tests.molmo2_jax.models.small import KINDS, random_weights
from tests.molmo2_jax.train.small_run import config
from tests.molmo2_jax.weights.sources import InMemory

ONE, EIGHT = (1, 1, 1, 1), (2, 2, 1, 2)
CONFIG = KINDS["qwen3_untied"]
STACKED, TABLE = "llm/blocks/mlp/gate/w", "llm/embed/base"


@contextlib.contextmanager
def on_mesh(sizes=ONE):
    devices = jax.devices()[: int(np.prod(sizes))]
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), devices)
    with jax.set_mesh(mesh):
        yield mesh, parameters.structure(CONFIG)


@pytest.fixture(scope="module")
def s():
    with on_mesh() as (_, found):
        return found


def model_values(s, dtype=np.float32):
    return {name: x.astype(dtype) for name, x in random_weights(s.shapes).items()}


def write(source, s, folder):
    """Writes a dict or a source; returns the byte counts that were reported."""
    steps = []
    write_params(InMemory(source) if isinstance(source, dict) else source, s, folder, steps.append)
    return steps


def whole(source, s, name):
    layers = s.layers(name)
    return source.read(name, None) if layers is None else np.stack([source.read(name, i) for i in range(layers)])


def assert_equal_bits(got, want):
    assert got.dtype == want.dtype and got.shape == want.shape
    assert got.tobytes() == want.tobytes()


@pytest.fixture(scope="module", params=[np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
def written(request, tmp_path_factory, s):
    """(folder, its values, reported byte counts), for either dtype."""
    folder = tmp_path_factory.mktemp("written") / "params"
    values = model_values(s, request.param)
    save_architecture(folder.parent, s.config)
    return folder, values, write(values, s, folder)


def test_every_parameter_comes_back_bit_by_bit(written, s):
    folder, values, steps = written
    found = ParamFiles(folder)
    assert found.where == str(folder)
    assert {n: (a.shape, a.dtype) for n, a in found.arrays.items()} == {
        n: (x.shape, x.dtype) for n, x in values.items()
    }
    for name, want in values.items():
        assert_equal_bits(whole(found, s, name), want)
        assert_equal_bits(found.read(name, None), want)
    assert sum(steps) == sum(x.nbytes for x in values.values())


@pytest.mark.parametrize("sizes", [ONE, EIGHT])
def test_orbax_alone_restores_it_into_shards_as_stored_and_as_float32(written, sizes):
    folder, values, _ = written
    with on_mesh(sizes) as (mesh, s):
        loaded = load_params(folder.parent, s, mesh)
        wanted = s.abstract(mesh)
        stored = {n: jax.ShapeDtypeStruct(a.shape, values[n].dtype, sharding=a.sharding) for n, a in wanted.items()}
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(folder, traverse_util.unflatten_dict(stored, sep="/"))
    for name, x in traverse_util.flatten_dict(tree, sep="/").items():
        assert_equal_bits(np.asarray(x), values[name])
        assert_equal_bits(np.asarray(loaded[name]), values[name].astype(np.float32))
        assert x.sharding == loaded[name].sharding == wanted[name].sharding


def test_it_restores_without_a_target(written):
    folder, values, _ = written
    with ocp.StandardCheckpointer() as checkpointer:
        tree = traverse_util.flatten_dict(checkpointer.restore(folder), sep="/")
    assert tree.keys() == values.keys()
    assert_equal_bits(np.asarray(tree[STACKED]), values[STACKED])


def chunks(folder):
    return {
        name: leaf.storage.chunk_shape
        for name, leaf in traverse_util.flatten_dict(
            ocp.StandardCheckpointHandler().metadata(folder).tree, sep="/"
        ).items()
    }


def test_a_chunk_has_one_layer_or_a_part_of_one(tmp_path, s, monkeypatch):
    monkeypatch.setattr(orbax_files, "CHUNK_BYTES", 3000)
    values = model_values(s)
    write(values, s, tmp_path / "params")
    found = chunks(tmp_path / "params")
    assert found[STACKED] == (1, 11, 48)  # of a layer [32, 48]
    assert found[TABLE] == (23, 32)  # of [320, 32]: thirteen chunks and a smaller one
    assert all(chunk[0] == 1 for name, chunk in found.items() if s.layers(name))
    files = ParamFiles(tmp_path / "params")
    for name, want in values.items():
        assert_equal_bits(whole(files, s, name), want)


class Views(InMemory):
    """Gives transposed views, as a source does whose tensors are stored transposed."""

    def read(self, name, layer):
        return np.ascontiguousarray(super().read(name, layer).T).T


def test_transposed_views_are_written_in_their_own_order(tmp_path, s):
    values = model_values(s)
    write(Views(values), s, tmp_path / "params")
    found = ParamFiles(tmp_path / "params")
    for name, want in values.items():
        assert_equal_bits(whole(found, s, name), want)


def test_a_layer_is_read_only_when_those_before_it_are_nearly_written(tmp_path, s, monkeypatch):
    monkeypatch.setattr(orbax_files, "_IN_FLIGHT", 5000)
    waiting = [0]
    most = [0]

    class Counting(InMemory):
        def read(self, name, layer):
            found = super().read(name, layer)
            most[0] = max(most[0], waiting[0])
            waiting[0] += found.nbytes
            return found

    source = Counting(model_values(s))
    write_params(source, s, tmp_path / "params", lambda n: waiting.__setitem__(0, waiting[0] - n))
    assert waiting == [0] and 2000 < most[0] <= 5000


def test_what_training_saved_is_read_layer_by_layer(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 3000)
    with on_mesh() as (_, s):
        values = model_values(s)
        params = {name: jnp.asarray(x) for name, x in values.items()}
        state = State(jnp.int32(7), params, {TABLE: params.pop(TABLE)}, {"count": jnp.int32(7)})
        store = checkpoint.Checkpoints(tmp_path, CheckpointConfig(every=1, keep=1), to_json(config()), s.config)
        store.save(state, iter(grain.MapDataset.range(9).to_iter_dataset()))
        store.close()
    folder = tmp_path / "checkpoints" / "7" / "params"
    found = ParamFiles(folder)
    assert found.arrays.keys() == values.keys()
    for name, want in values.items():
        assert_equal_bits(whole(found, s, name), want)
    for name, chunk in chunks(folder).items():
        assert np.prod(chunk) * 4 <= 3000 and (s.layers(name) is None or chunk[0] == 1)


class Broken(InMemory):
    """Raises at the second layer of a parameter, or gives another shape or dtype there."""

    def __init__(self, arrays, at):
        super().__init__(arrays, "broken")
        self.at = at

    def read(self, name, layer):
        if (name, layer) != (STACKED, 1):
            return super().read(name, layer)
        if isinstance(self.at, BaseException):
            raise self.at
        return self.at(super().read(name, layer))


FAILURES = [
    (OSError("the disk is gone"), OSError, "the disk is gone"),
    (KeyboardInterrupt("pressed"), KeyboardInterrupt, "pressed"),
    (
        lambda x: x.T,
        CheckpointError,
        rf"broken: parameter {STACKED}, layer 1 is float32\[48, 32\], expected float32\[32, 48\]",
    ),
    (lambda x: x.astype(np.float64), CheckpointError, r"is float64\[32, 48\], expected float32\[32, 48\]"),
]


@pytest.mark.parametrize(("at", "error", "message"), FAILURES)
def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path, s, at, error, message):
    with pytest.raises(error, match=message):
        write(Broken(model_values(s), at), s, tmp_path / "params")
    assert list(tmp_path.iterdir()) == []
    write(model_values(s), s, tmp_path / "params")  # nothing is left that prevents the next write


def test_a_source_of_another_model_is_refused_before_anything_is_written(tmp_path, s):
    good = model_values(s)
    cases = {
        f"memory: parameter {STACKED} is missing": {n: x for n, x in good.items() if n != STACKED},
        "memory: parameter llm/more is unknown": good | {"llm/more": np.zeros(3, np.float32)},
        rf"memory: parameter {TABLE} has shape \[32, 320\], the model's has \[320, 32\]": good | {TABLE: good[TABLE].T},
    }
    for message, values in cases.items():
        with pytest.raises(CheckpointError, match=message):
            write(values, s, tmp_path / "params")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_never_overwritten(written, s):
    folder, values, _ = written
    with pytest.raises(ValueError, match=f"{folder} already exists"):
        write(values, s, folder)
    assert_equal_bits(ParamFiles(folder).read(TABLE, None), values[TABLE])


def test_a_missing_unfinished_or_damaged_checkpoint_is_named(tmp_path, s):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/none: no such folder"):
        ParamFiles(tmp_path / "none")
    with pytest.raises(CheckpointError, match=f"{tmp_path}: no parameters as Orbax stores them"):
        ParamFiles(tmp_path)
    write(model_values(s), s, tmp_path / "params")
    for name in ("params.orbax-checkpoint-tmp", "7.orbax-checkpoint-tmp/params"):
        unfinished = tmp_path / name
        unfinished.parent.mkdir(exist_ok=True)
        (tmp_path / "params").rename(unfinished)
        with pytest.raises(CheckpointError, match=f"{unfinished}: an unfinished checkpoint"):
            ParamFiles(unfinished)
        unfinished.rename(tmp_path / "params")
    (tmp_path / "params" / "manifest.ocdbt").unlink()
    with pytest.raises(CheckpointError, match=f"{tmp_path}/params: parameter connector/down/w is damaged"):
        ParamFiles(tmp_path / "params")


def test_a_parameter_that_cannot_be_read_is_named(tmp_path, s):
    folder = tmp_path / "params"
    write(model_values(s), s, folder)
    found = ParamFiles(folder)
    with pytest.raises(CheckpointError, match=f"{folder}: no parameter llm/none"):
        found.read("llm/none", None)
    for layer in (-1, 2):
        with pytest.raises(CheckpointError, match=rf"{STACKED} \[2, 32, 48\] has no layer {layer}"):
            found.read(STACKED, layer)
    for path in (folder / "ocdbt.process_0" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=f"{folder}: parameter {TABLE} is damaged"):
        found.read(TABLE, None)


def test_the_formats_are_read_from_the_checkpoint(tmp_path, s):
    values = model_values(s)
    tree = traverse_util.unflatten_dict(values, sep="/")
    for name, options in {"zarr3": {"use_zarr3": True}, "files": {"use_ocdbt": False}}.items():
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
            checkpointer.save(tmp_path / name, ocp.args.PyTreeSave(tree))
        assert json.loads((tmp_path / name / "_METADATA").read_text())["use_zarr3"] == (name == "zarr3")
        found = ParamFiles(tmp_path / name)
        for parameter in (STACKED, TABLE):
            assert_equal_bits(whole(found, s, parameter), values[parameter])
