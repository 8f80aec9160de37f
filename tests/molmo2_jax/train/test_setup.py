"""From configs to runs that are ready to compile: values that fit, and messages about those that do not."""

import copy
import dataclasses
import math
import re

import jax
import pytest

from data_pipelines.config import ConfigError, OneOf, Range
from data_pipelines.packing.schema import FIELDS
from molmo2_jax import sharding
from molmo2_jax.models.config import TINY
from molmo2_jax.models.structure import structure
from molmo2_jax.train import setup
from molmo2_jax.train.config import TrainConfig, read
from molmo2_jax.train.parameter_groups import FROZEN
from molmo2_jax.train.setup import check_fits, mesh_test, open_data, set_up
from tests.data_pipelines.restrictions import restrictions
from tests.molmo2_jax.models.small import KINDS, rows
from tests.molmo2_jax.train.small_run import config, dataset

ONE = {"data": 1, "fsdp": 1, "context": 1, "tensor": 1}
EIGHT = {"data": 1, "fsdp": 2, "context": 2, "tensor": 2}


def leaves(tree, path="config"):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}", value


def with_value(path, value):
    tree = copy.deepcopy(TREE)
    *parents, key = path.split(".")[1:]
    branch = tree
    for parent in parents:
        branch = branch[parent]
    branch[key] = value
    return tree


def key_of(path):
    """The key of `restrictions` for a path: names that a config chooses become `*`."""
    return re.sub(r"\.(groups|datasets|init_from)\.[^.]+", r".\1.*", path)


# A mixture whose dataset has numbers also where None is allowed.
EVERY = {"groups": {"street": {"rate": 1.0, "datasets": {"questions": dataset("a.jsonl")}}}, "missing": "stop"}
TREE = dataclasses.asdict(config(data__mixture=EVERY))
LEAVES = dict(leaves(TREE))
NUMBERS = {path: value for path, value in LEAVES.items() if type(value) in (int, float)}
MESH_SIZES = {f"config.mesh.{axis}" for axis in sharding.MESH_AXES}  # make_mesh checks them with the devices
RESTRICTIONS = restrictions(TrainConfig, "config")
CHOICES = [key for key, restriction in RESTRICTIONS.items() if isinstance(restriction, OneOf)]


def test_every_number_of_a_config_has_a_range_on_its_field():
    ranges = {key for key, restriction in RESTRICTIONS.items() if isinstance(restriction, Range)}
    assert {key_of(path) for path in NUMBERS} == ranges | MESH_SIZES
    assert set(CHOICES) <= LEAVES.keys()


def test_the_small_run_is_in_range():
    assert read(TREE) == config(data__mixture=EVERY)


@pytest.mark.parametrize("path", [path for path in NUMBERS if path not in MESH_SIZES])
def test_a_value_out_of_its_range_is_named(path):
    allowed, kind = RESTRICTIONS[key_of(path)], type(NUMBERS[path])
    outside = [kind(allowed.low - 1)] + [kind(allowed.low)] * allowed.exclusive
    if not math.isinf(allowed.high):
        outside.append(kind(allowed.high + 1))
    for value in outside + ([math.nan] if kind is float else []):
        with pytest.raises(ConfigError, match=f"^{re.escape(path)} = {value} must be "):
            read(with_value(path, value))


@pytest.mark.parametrize("path", CHOICES)
def test_an_unknown_choice_is_named_with_the_known_ones(path):
    known = ", ".join(sorted(RESTRICTIONS[path].values))
    with pytest.raises(ConfigError, match=f"^{re.escape(path)} = 'other' is unknown; known: {known}$"):
        read(with_value(path, "other"))


def test_the_message_of_a_range_says_where_it_begins_and_ends():
    with pytest.raises(ConfigError, match=r"^config\.data\.row\.seq_len = 0 must be at least 1$"):
        read(with_value("config.data.row.seq_len", 0))
    with pytest.raises(ConfigError, match=r"^config\.optim\.b1 = 2\.0 must be at least 0, at most 1$"):
        read(with_value("config.optim.b1", 2.0))
    with pytest.raises(ConfigError, match=r"^config\.optim\.eps = 0\.0 must be more than 0$"):
        read(with_value("config.optim.eps", 0.0))


def test_all_mistakes_come_at_once():
    message = r"^config\.batch = 0 must be at least 1; config\.log_every = 0 must be at least 1$"
    with pytest.raises(ConfigError, match=message):
        config(batch=0, log_every=0)


def abstract_mesh(sizes):
    return jax.sharding.AbstractMesh(tuple(sizes[axis] for axis in sharding.MESH_AXES), sharding.MESH_AXES)


def test_tpu_kernels_are_refused_where_they_cannot_run():
    c = config(model__attention="pallas")
    with pytest.raises(ValueError, match='is for TPUs, the devices are cpus: use "blockwise"'):
        check_fits(c, TINY, abstract_mesh(ONE), "cpu")
    with pytest.raises(ValueError, match="needs a head dim that is a multiple of 128, tiny has 48"):
        check_fits(c, TINY, abstract_mesh(ONE), "tpu")
    fitting = dataclasses.replace(TINY, llm=dataclasses.replace(TINY.llm, head_dim=128))
    check_fits(c, fitting, abstract_mesh(ONE), "tpu")


@pytest.mark.parametrize(
    ("changes", "mesh", "message"),
    [
        ({"batch": 4, "microbatches": 3}, {}, "batch = 4 cannot be divided into microbatches = 3"),
        ({"batch": 3}, {"data": 2}, "batch = 3 "),
        ({"batch": 4, "microbatches": 2}, {"data": 2, "fsdp": 2}, "batch / microbatches = 2 "),
        ({"data__row__seq_len": 770}, {"context": 4}, "data.row.seq_len = 770 "),
        ({}, {"context": 3}, "data.row.crops = 5 "),
        ({"data__row__crops": 4}, {"context": 2}, "data.row.pooled = 405 "),
        ({"batch": 3}, {"fsdp": 3}, "llm width = 128 "),
        ({}, {"tensor": 4}, "llm kv_heads = 2 "),
        (
            {"model__token_order": "zigzag", "data__row__seq_len": 774, "data__row__crops": 4, "data__row__pooled": 4},
            {"context": 2},
            'token_order "zigzag" .* 774 tokens',
        ),
    ],
)
def test_the_first_size_that_does_not_fit_the_mesh_is_named(changes, mesh, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        check_fits(config(**changes), TINY, abstract_mesh(ONE | mesh), "cpu")


def test_a_model_of_other_patches_is_refused():
    other = dataclasses.replace(TINY, vit=dataclasses.replace(TINY.vit, patches=256))
    with pytest.raises(ValueError, match="tiny has 256 patches of 588 values per crop, the data 729 of 588"):
        check_fits(config(), other, abstract_mesh(ONE), "cpu")


def test_a_run_is_set_up_without_allocating_it():
    c = config(mesh=EIGHT, data__row__crops=4, data__row__pooled=324)
    before = len(jax.live_arrays())
    run = set_up(c)
    assert len(jax.live_arrays()) <= before  # arrays of earlier tests may be collected meanwhile
    assert dict(run.mesh.shape) == EIGHT and list(run.mesh.devices.flat) == jax.devices()
    assert run.architecture.name == "small" and run.architecture.llm.vocab == 151_936
    assert run.assigned.keys() == run.structure.shapes.keys()
    assert run.state.frozen.keys() == {name for name, group in run.assigned.items() if group == FROZEN}
    for name, parameter in run.state.params.items():
        assert parameter.shape == run.structure.shapes[name] and parameter.sharding.mesh == run.mesh


def test_the_step_of_a_setup_keeps_the_shapes_of_its_state():
    run = set_up(config(), jax.devices()[:1], KINDS["qwen3_tied"])
    assert run.architecture == KINDS["qwen3_tied"]  # not the preset's
    with jax.set_mesh(run.mesh):
        batch = sharding.put_rows({name: rows(run.architecture)[name] for name in FIELDS}, run.mesh)
        state, metrics = jax.eval_shape(run.step, run.state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), run.state)
    assert {"loss", "lr/llm", "grad_norm/vit"} <= metrics.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": {"data": 1}}, "config: a mesh needs exactly the axes"),
        ({"mesh": ONE | {"data": 2}}, "config: mesh .* 2 devices"),
        ({"batch": 3, "microbatches": 2}, "config: batch = 3 "),
        ({"model__preset": "molmo9"}, "config: .*'molmo9' is unknown"),
        ({"optim__frozen": "nothing"}, "config: optim: parameter 'llm/embed/base' must match one group"),
        ({"init_from": {"all": {"pattern": ".*", "source": "s3:a"}}}, "config: init_from.all.source is 's3:a'"),
        ({"init_from": {"llm": {"pattern": "llm/.*", "source": "random"}}}, "config: init_from: parameter 'connector/"),
    ],
)
def test_a_config_that_does_not_fit_devices_or_model_is_a_config_error(changes, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        set_up(config(**changes), jax.devices()[:1])


def test_a_config_that_was_not_read_is_checked_too():
    with pytest.raises(ConfigError, match=r"^config\.steps = 0 must be at least 1$"):
        set_up(dataclasses.replace(config(), steps=0), jax.devices()[:1])


@pytest.fixture
def opened(monkeypatch):
    """The arguments that Data was opened with."""
    calls = []
    monkeypatch.setattr(setup, "Data", lambda config, **derived: calls.append((config, derived)))
    return calls


def test_data_are_opened_for_the_model_and_the_mesh(opened):
    c = config(mesh=ONE | {"data": 16, "context": 4})  # more devices than there are here
    open_data(c)
    open_data(c, KINDS["olmo3"])
    assert opened == [
        (c.data, {"vocab_size": 151_936, "vision_shards": 4}),
        (c.data, {"vocab_size": 320, "vision_shards": 4}),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": {"data": 1}}, "config: a mesh needs exactly the axes"),
        ({"model__preset": "molmo9"}, "config: .*'molmo9' is unknown"),
    ],
)
def test_data_of_a_model_or_mesh_that_is_unknown_are_not_opened(opened, changes, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        open_data(config(**changes))
    assert not opened


def test_a_mesh_is_tested_without_building_it():
    c = config(batch=8, data__row__crops=8, data__row__pooled=648)
    count, fits = mesh_test(c, jax.devices()[0])
    with jax.set_mesh(sharding.single_device_mesh()):
        assert count == structure(set_up(c, jax.devices()[:1]).architecture).count()
    tested = [ONE, EIGHT, ONE | {"data": 8}, ONE | {"data": 16}, ONE | {"context": 5}, ONE | {"tensor": 3}]
    assert [fits(sizes) for sizes in tested] == [True, True, True, False, False, False]
