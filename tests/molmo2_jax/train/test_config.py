"""Configs from experiments/ and from JSON, and the messages for mistakes in them."""

import copy
import dataclasses
import json
import typing

import pytest

from data_pipelines.config import ConfigError
from molmo2_jax.train.config import TrainConfig, read
from tests.molmo2_jax.train.recipe import NAMES, experiment

TREE = experiment("overfit_video_point").to_dict()


def changed(path, value):
    """TREE with the value at a path such as "optim.groups.llm.lr" replaced, or dropped (None)."""
    tree = copy.deepcopy(TREE)
    *parents, key = path.split(".")
    branch = tree
    for parent in parents:
        branch = branch[parent]
    if value is None:
        del branch[key]
    else:
        branch[key] = value
    return tree


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_read(name):
    c = read(experiment(name).to_dict())
    assert isinstance(c, TrainConfig) and set(c.optim.groups) == {"connector", "vit", "llm"}


def test_a_config_survives_json():
    c = read(TREE)
    again = read(json.loads(json.dumps(dataclasses.asdict(c))))
    assert again == c


@pytest.mark.parametrize(
    "path",
    [
        "stepz",
        "data.frames",
        "data.vocab_size",
        "data.view.crops",
        "data.row.vision_shards",
        "model.width",
        "optim.b3",
        "optim.groups.llm.decay",
        "checkpoint.each",
    ],
)
def test_an_unknown_key_is_named_by_its_path(path):
    with pytest.raises(ConfigError, match=f"^config.{path} is unknown$"):
        read(changed(path, 1))


@pytest.mark.parametrize(
    "path",
    [
        "seed",
        "mesh",
        "data",
        "data.mixture",
        "data.loader.pool",
        "model.remat",
        "optim.groups.vit.warmup",
        "checkpoint.keep",
    ],
)
def test_a_missing_key_is_named_by_its_path(path):
    with pytest.raises(ConfigError, match=f"^config.{path} is missing$"):
        read(changed(path, None))


def test_a_misspelt_key_is_named_with_the_one_it_leaves_out():
    tree = changed("optim.clip", None)
    tree["optim"]["clipp"] = 1.0
    with pytest.raises(ConfigError, match=r"^config.optim.clipp is unknown; config.optim.clip is missing$"):
        read(tree)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("steps", 1.5, "config.steps = 1.5 must be of type int"),
        ("steps", True, "config.steps = True must be of type int"),
        ("z_loss", "1e-4", "config.z_loss = '1e-4' must be of type float"),
        ("mesh.fsdp", "2", "config.mesh.fsdp = '2' must be of type int"),
        ("mesh", 8, r"config.mesh = 8 must be of type dict\[str, int\]"),
        ("model", "tiny", "config.model = 'tiny' must be of type RunConfig"),
        ("data.mixture", "a", "config.data.mixture = 'a' must be of type MixtureConfig"),
        ("data.mixture.groups", "a", r"config.data.mixture.groups = 'a' must be of type dict\[str, .*"),
        (
            "data.mixture.groups.records.rate",
            "often",
            "config.data.mixture.groups.records.rate = 'often' must be of type float",
        ),
        ("data.prompts.templates", 1, "config.data.prompts.templates = 1 must be of type bool"),
        ("optim.groups.llm.lr", "fast", "config.optim.groups.llm.lr = 'fast' must be of type float"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(path, value, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        read(changed(path, value))


def test_an_int_serves_where_a_float_is_meant():
    lr = read(changed("optim.groups.llm.lr", 1)).optim.groups["llm"].lr
    assert lr == 1.0 and type(lr) is float


def test_no_key_has_a_default():
    def visit(kind):
        for inner in typing.get_args(kind):
            visit(inner)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):  # not a range of Annotated
            seen.add(kind.__name__)
            for field in dataclasses.fields(kind):
                assert field.default is field.default_factory is dataclasses.MISSING, (kind, field.name)
                visit(field.type)

    seen = set()
    visit(TrainConfig)
    mixture = {"MixtureConfig", "MixtureGroup", "DatasetConfig"}
    data = {"DataConfig", "PromptConfig", "ViewConfig", "TokenWeightConfig", "RowShape", "LoaderConfig"} | mixture
    sections = {"RunConfig", "InitConfig", "OptimConfig", "GroupConfig", "CheckpointConfig"} | data
    assert seen == {"TrainConfig"} | sections
