import contextlib
import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from data_pipelines.config import ConfigError
from molmo2_jax import sharding
from molmo2_jax.models import config as models
from molmo2_jax.models import structure as parameters
from molmo2_jax.train import loop
from molmo2_jax.weights import init_from
from molmo2_jax.weights.checkpoint_files import save_architecture
from molmo2_jax.weights.hf.config import HfError
from molmo2_jax.weights.init_from import InitConfig
from molmo2_jax.weights.orbax_files import write_params
from molmo2_jax.weights.random_init import init_params
from tests.molmo2_jax.models.small import KINDS, random_weights
from tests.molmo2_jax.train.small_run import config
from tests.molmo2_jax.weights.hf import formats
from tests.molmo2_jax.weights.hf.configs import llm_config
from tests.molmo2_jax.weights.sources import InMemory, write_hf

ONE, EIGHT = (1, 1, 1, 1), (1, 4, 1, 2)
PARTS = {"llm": r"llm/(?!embed/new).*", "vit": r"vit/.*", "connector": r"connector/.*|llm/embed/new"}
CONFIG = KINDS["qwen3_untied"]


@contextlib.contextmanager
def on_mesh(sizes=ONE, c=CONFIG):
    devices = jax.devices()[: int(np.prod(sizes))]
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), devices)
    with jax.set_mesh(mesh):
        yield mesh, parameters.structure(c)


def values(c=CONFIG, seed=0):
    with on_mesh(c=c) as (_, s):
        return random_weights(s.shapes, seed)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A base language model, a Hugging Face Molmo2 and an Orbax Molmo2, each with different weights."""
    root = tmp_path_factory.mktemp("sources")
    formats.write(root / "qwen3", llm_config("qwen3", CONFIG.llm), formats.base_llm(values(seed=1), "qwen3"))
    with on_mesh() as (_, s):
        write_hf(root / "molmo2", s, random_weights(s.shapes, 2))
        (root / "orbax").mkdir()
        write_params(InMemory(random_weights(s.shapes, 3)), s, root / "orbax" / "params", lambda n: None)
        save_architecture(root / "orbax", s.config)
    return root


def asked(**sources):
    return {part: InitConfig(PARTS[part], source) for part, source in sources.items()}


@pytest.mark.parametrize("sizes", [ONE, EIGHT])
def test_each_part_comes_from_its_own_source_whatever_the_mesh(sources, sizes):
    c = asked(llm=f"hf:{sources}/qwen3", vit=f"orbax:{sources}/orbax", connector="random")
    with on_mesh(sizes) as (mesh, s):
        params, table = init_from.initial_params(s, mesh, c, seed=7)
        fresh = init_params(s, seed=7)
        stored = s.abstract(mesh)
    seeds = {"llm": values(seed=1), "vit": values(seed=3), "connector": fresh}
    for name, part in init_from.assign_sources(s, c).items():
        np.testing.assert_array_equal(np.asarray(params[name]), np.asarray(seeds[part][name]), err_msg=name)
        assert (params[name].dtype, params[name].sharding) == (np.float32, stored[name].sharding)
    count = sum(x.size for name, x in params.items() if name.startswith("vit/"))
    assert f"vit             {count:>12,}  orbax:{sources}/orbax" in table and "random" in table


def test_a_hugging_face_molmo2_gives_all_parameters(sources):
    everything = {"all": InitConfig(".*", f"hf:{sources}/molmo2")}
    with on_mesh(EIGHT) as (mesh, s):
        params, _ = init_from.initial_params(s, mesh, everything, seed=0)
    for name, x in values(seed=2).items():
        np.testing.assert_array_equal(np.asarray(params[name]), x, err_msg=name)


def test_the_architecture_can_be_that_of_a_directory(sources):
    with on_mesh():
        found = init_from.load_preset(f"hf:{sources}/molmo2")
    assert dataclasses.replace(found, name=CONFIG.name) == CONFIG


def test_the_vocabulary_of_a_directory_is_read_without_its_weights(sources, tmp_path):
    (tmp_path / "config.json").write_bytes((sources / "molmo2" / "config.json").read_bytes())
    assert init_from.load_vocab_size(f"hf:{tmp_path}") == CONFIG.llm.vocab
    assert init_from.load_vocab_size("tiny") == models.TINY.llm.vocab


def replaced(part, **changes):
    return dataclasses.replace(CONFIG, **{part: dataclasses.replace(getattr(CONFIG, part), **changes)})


@pytest.mark.parametrize(
    ("wanted", "source", "message"),
    [
        (replaced("llm", rope_theta=5e6), "qwen3", r"init_from.llm: .*llm.rope_theta: 1000000.0 -> 5000000.0"),
        (replaced("llm", mlp=64), "qwen3", r"llm.mlp: 48 -> 64"),
        (replaced("llm", tied=True), "qwen3", r"llm.tied: False -> True"),
        (replaced("llm", yarn_layers=(1,)), "molmo2", r"llm.yarn_layers: \(\) -> \(1,\)"),
    ],
)
def test_another_language_model_is_refused_by_the_values_that_differ(sources, wanted, source, message):
    with on_mesh(c=wanted) as (mesh, s), pytest.raises(ConfigError, match=message):
        init_from.initial_params(s, mesh, asked(llm=f"hf:{sources}/{source}", vit="random", connector="random"), 0)


@pytest.mark.parametrize(
    ("c", "error", "message"),
    [
        (
            asked(llm="random", vit="random"),
            ValueError,
            "init_from: parameter '.*' must match one group, it matches none",
        ),
        (
            asked(llm="random", vit="random", connector="random") | {"all": InitConfig(".*", "random")},
            ValueError,
            "must match one group, it matches",
        ),
        (
            asked(llm="random", vit="random", connector="random") | {"more": InitConfig("x", "random")},
            ValueError,
            r"init_from: groups \['more'\] match no parameter",
        ),
        (asked(llm="runs/a", vit="random", connector="random"), ValueError, r"init_from.llm.source is 'runs/a'"),
        (asked(llm="random", vit="hf:{}/qwen3", connector="random"), ConfigError, "hf:.*qwen3 has no 'vit/"),
        (asked(llm="random", vit="random", connector="hf:{}/qwen3"), ConfigError, "hf:.*qwen3 has no 'llm/embed/new'"),
        (asked(llm="hf:{}/none", vit="random", connector="random"), HfError, "none: no such folder"),
        (asked(llm="orbax:{}/none", vit="random", connector="random"), FileNotFoundError, "no finished checkpoint"),
    ],
)
def test_sources_that_do_not_fit_are_named(sources, c, error, message):
    c = {group: dataclasses.replace(one, source=one.source.format(sources)) for group, one in c.items()}
    with on_mesh() as (mesh, s), pytest.raises(error, match=message):
        init_from.initial_params(s, mesh, c, 0)


def test_a_tied_model_wants_a_head_that_is_the_embedding(sources):
    tied = replaced("llm", tied=True)
    with (
        on_mesh(c=tied) as (mesh, s),
        pytest.raises(HfError, match=r"lm_head.weight: differs from the input embedding"),
    ):
        init_from.initial_params(s, mesh, {"all": InitConfig(".*", f"hf:{sources}/molmo2")}, 0)


def test_a_run_starts_from_a_checkpoint_and_a_bad_one_leaves_no_workdir(tmp_path):
    mesh = {"data": 2, "fsdp": 2, "context": 1, "tensor": 2}
    first = config(steps=1, batch=4, mesh=mesh)
    c = dataclasses.replace(first, init_from={"all": InitConfig(".*", f"orbax:{tmp_path}/first")})
    loop.train(first, tmp_path / "first")
    loop.train(c, tmp_path / "second")
    lines = [json.loads((tmp_path / run / "metrics.jsonl").read_text()) for run in ("first", "second")]
    assert lines[1]["loss"] != lines[0]["loss"]

    shutil.rmtree(tmp_path / "first" / "checkpoints" / "1" / "params" / "d")
    with pytest.raises(ValueError):
        loop.train(c, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_presets_are_found_by_name(sources):
    with on_mesh():
        assert init_from.load_preset("tiny") == models.TINY
        with pytest.raises(ValueError, match="'molmo9' is unknown"):
            init_from.load_preset("molmo9")


def test_a_run_started_from_a_directory_continues_without_it(tmp_path):
    mesh = {"data": 2, "fsdp": 2, "context": 1, "tensor": 2}
    architecture = dataclasses.replace(models.PRESETS["small"], name="anything")
    with on_mesh(c=architecture) as (_, s):
        write_hf(tmp_path / "hf", s, random_weights(s.shapes))
    one = config(steps=1, batch=4, mesh=mesh, model__preset=f"hf:{tmp_path}/hf")
    everything = {"all": InitConfig(".*", f"hf:{tmp_path}/hf")}
    loop.train(dataclasses.replace(one, init_from=everything), tmp_path / "run")
    shutil.rmtree(tmp_path / "hf")
    loop.train(dataclasses.replace(one, init_from=everything, steps=2), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
