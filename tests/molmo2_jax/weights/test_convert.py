"""Conversions in both directions: bit-equal round trips, dtypes, processors, and no partial output after an error."""

import dataclasses
import json

import fsspec
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from data_pipelines.text.tokenizer import Tokenizer
from molmo2_jax import sharding
from molmo2_jax.models.structure import structure
from molmo2_jax.weights import convert
from molmo2_jax.weights.checkpoint_files import CheckpointError, load_architecture, load_params, newest_step
from molmo2_jax.weights.hf import fetch, tensor_files
from molmo2_jax.weights.hf.config import HfError, write_config
from molmo2_jax.weights.hf.processor import AUTO_MAP, FILES, read_processor
from molmo2_jax.weights.hf.tensor_files import INDEX, SINGLE
from tests.molmo2_jax.generate.saved_run import save_run
from tests.molmo2_jax.models.small import KINDS, small
from tests.molmo2_jax.weights.converted import SETTINGS, parameters, read_orbax, tokenizer, write_hf, write_orbax
from tests.molmo2_jax.weights.hf import formats
from tests.molmo2_jax.weights.hf.small_hf import assert_equal, read_all, source

FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)


def to_hf(source, target, layout="released", dtype=None):
    return convert.orbax_to_hf(str(source), target, layout=layout, dtype=dtype, max_positions=4096)


def tensors(folder):
    """The tensors of all files of a directory."""
    out = {}
    for path in folder.glob("*.safetensors"):
        out |= safetensors.numpy.load_file(path)
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def processor(folder):
    """The files of a directory's processor, without the names of the code next to them."""

    def parsed(name, content):
        if not name.endswith(".json"):
            return content
        return {key: value for key, value in json.loads(content).items() if key != AUTO_MAP}

    return {name: parsed(name, content) for name, content in contents(folder).items() if name in FILES}


@pytest.fixture
def sharded(monkeypatch):
    monkeypatch.setattr(tensor_files, "SHARD_BYTES", 40_000)


# Round trips


@pytest.mark.parametrize(
    ("kind", "layout", "dtype"),
    [
        ("qwen3_tied", "released", FLOAT32),
        ("qwen3_tied", "transformers", BFLOAT16),
        ("qwen3_untied", "transformers", FLOAT32),
        ("olmo3", "released", BFLOAT16),
    ],
)
def test_orbax_to_hf_to_orbax(tmp_path, sharded, kind, layout, dtype):
    c = KINDS[kind]
    p = parameters(c, dtype)
    write_orbax(tmp_path / "small", c, p)
    to_hf(tmp_path / "small", tmp_path / "hf" / "small", layout)
    assert (tmp_path / "hf" / "small" / INDEX).is_file()
    convert.hf_to_orbax(str(tmp_path / "hf" / "small"), tmp_path / "back")
    assert_equal(read_orbax(tmp_path / "back"), p)
    assert load_architecture(tmp_path / "back") == dataclasses.replace(c, name="small")
    to_hf(tmp_path / "back", tmp_path / "again", layout)
    assert contents(tmp_path / "again") == contents(tmp_path / "hf" / "small")  # the same files to the byte


@pytest.mark.parametrize(
    ("kind", "layout", "dtype"),
    [
        ("qwen3_tied", "released", BFLOAT16),
        ("olmo3", "transformers", FLOAT32),
    ],
)
def test_hf_to_orbax_to_hf(tmp_path, sharded, kind, layout, dtype):
    c = KINDS[kind]
    p = parameters(c, dtype)
    original = write_hf(tmp_path / "hf", c, p, layout)
    convert.hf_to_orbax(str(original), tmp_path / "orbax")
    assert_equal(read_orbax(tmp_path / "orbax"), p)
    to_hf(tmp_path / "orbax", tmp_path / "back", layout)
    assert_equal(tensors(tmp_path / "back"), formats.MOLMO2[layout](p))
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 3
    assert processor(tmp_path / "back") == processor(original) and len(processor(original)) == 7
    assert json.loads((tmp_path / "back" / "config.json").read_text())["dtype"] == str(dtype)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["text_config"]["max_position_embeddings"] == 4096


def test_values_are_rounded_when_asked(tmp_path):
    c = small()
    p = parameters(c)
    write_orbax(tmp_path / "orbax", c, p)
    to_hf(tmp_path / "orbax", tmp_path / "hf", dtype=BFLOAT16)
    assert_equal(tensors(tmp_path / "hf"), formats.released({name: x.astype(BFLOAT16) for name, x in p.items()}))
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_url_is_a_source(tmp_path):
    c = small()
    p = parameters(c)
    memory = fsspec.filesystem("memory")
    for path in write_hf(tmp_path / "hf", c, p).iterdir():
        memory.pipe_file(f"/bucket/released/{path.name}", path.read_bytes())
    line = convert.hf_to_orbax("memory://bucket/released", tmp_path / "orbax")
    memory.rm("/bucket", recursive=True)
    assert_equal(read_orbax(tmp_path / "orbax"), p)
    assert load_architecture(tmp_path / "orbax").name == "released" and line.endswith("parameters of released")


# Checkpoints of a training run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, data_config):
    root = tmp_path_factory.mktemp("run")
    tok = tokenizer(root / "tok", 320)
    data = data_config(tokenizer=tok, max_crops=5, max_frames=64, frame_tokens="frame")
    save_run(root / "run", small(), data)
    return root / "run"


@pytest.mark.parametrize("folder", ["", "checkpoints/1"])
def test_a_run_becomes_a_directory_with_the_processor_of_its_config(workdir, tmp_path, folder):
    line = to_hf(workdir / folder, tmp_path / "hf")
    p = parameters(small())
    assert_equal(read_all(source(tmp_path / "hf")), p)
    assert read_processor(tmp_path / "hf") == SETTINGS
    assert Tokenizer.load(str(tmp_path / "hf"), 320).encode("Hi") == [72, 105]
    assert line.startswith(f"{tmp_path / 'hf'}: {len(formats.released(p))} tensors, 0.00 GB, ")
    assert line.endswith(f" {sum(x.size for x in p.values()):,} parameters of small")


def test_weights_alone_are_converted_too(tmp_path):
    c = small()
    original = tmp_path / "hf"
    formats.write(original, write_config(c, 4096, "float32"), formats.released(parameters(c)))
    convert.hf_to_orbax(str(original), tmp_path / "orbax")
    to_hf(tmp_path / "orbax", tmp_path / "back")
    assert contents(tmp_path / "back").keys() == {"config.json", "configuration_molmo2.py", SINGLE}


def test_a_converted_checkpoint_loads_into_shards(tmp_path):
    c = KINDS["olmo3"]
    p = parameters(c, BFLOAT16)
    convert.hf_to_orbax(str(write_hf(tmp_path / "small", c, p)), tmp_path / "orbax")
    eight = sharding.make_mesh(dict(zip(sharding.MESH_AXES, (2, 2, 1, 2), strict=True)), jax.devices()[:8])
    with jax.set_mesh(eight):
        s = structure(load_architecture(tmp_path / "orbax"))
        found = load_params(tmp_path / "orbax", s, eight)
    assert_equal({n: np.asarray(x) for n, x in found.items()}, {n: x.astype(FLOAT32) for n, x in p.items()})


# Errors


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full")], ids=repr)
def test_a_conversion_that_stops_in_the_middle_leaves_nothing(tmp_path, monkeypatch, error):
    c = small()
    p = parameters(c)
    original = write_hf(tmp_path / "in" / "hf", c, p)
    orbax = write_orbax(tmp_path / "in" / "orbax", c, p)
    calls = []

    def stop_at_20(read):
        def stopping(*arguments):
            calls.append(arguments)
            if len(calls) == 20:
                raise error
            return read(*arguments)

        return stopping

    for kind, run in ((convert.HfSource, convert.hf_to_orbax), (convert.ParamFiles, to_hf)):
        monkeypatch.setattr(kind, "read", stop_at_20(kind.read))
        calls.clear()
        with pytest.raises(type(error)):
            run(str(original if kind is convert.HfSource else orbax), tmp_path / "out")
        assert len(calls) == 20
        assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_field_that_the_format_cannot_express_is_named_before_anything_is_read(tmp_path, monkeypatch):
    c = small(qk_norm="none")
    write_orbax(tmp_path / "orbax", c, parameters(c))
    monkeypatch.setattr(convert.ParamFiles, "read", None)
    with pytest.raises(HfError, match=r"cannot express llm.qk_norm = 'none'"):
        to_hf(tmp_path / "orbax", tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["orbax"]


def test_a_parameter_that_is_not_finite_is_not_exported(tmp_path):
    c = small()
    p = parameters(c)
    p["vit/blocks/up/w"][1, 0, 0] = np.nan
    write_orbax(tmp_path / "orbax", c, p)
    with pytest.raises(HfError, match=r"^.*/orbax/params: parameter vit/blocks/up/w, layer 1 has values that are NaN"):
        to_hf(tmp_path / "orbax", tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["orbax"]


def test_a_missing_or_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/gone: no finished checkpoint there"):
        to_hf(tmp_path / "gone", tmp_path / "hf")
    orbax = write_orbax(tmp_path / "orbax", small(), parameters(small()))
    (orbax / "params" / "manifest.ocdbt").unlink()
    with pytest.raises(CheckpointError, match=f"^{orbax}/params: .*damaged"):
        to_hf(orbax, tmp_path / "hf")
    (orbax / "architecture" / "metadata").unlink()
    with pytest.raises(CheckpointError, match=f"{orbax}: no architecture/metadata"):
        to_hf(orbax, tmp_path / "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["orbax"]


def test_a_config_of_an_earlier_version_is_named(tmp_path, data_config):
    save_run(tmp_path / "run", small(), data_config(tokenizer=tokenizer(tmp_path / "tokenizer", 320)))
    step = newest_step(tmp_path / "run")
    path = step / "config" / "metadata"
    saved = json.loads(path.read_text())
    for data, key in (({"tokenizer": "t", "row": {"seq_len": 8}}, "data.view"), ({"seq_len": 8}, "data.row.seq_len")):
        path.write_text(json.dumps(saved | {"data": data}))
        with pytest.raises(CheckpointError, match=f"{step}: its config has no key {key}; an earlier version"):
            convert.orbax_to_hf(str(step), tmp_path / "hf", layout="released", dtype=None, max_positions=None)
    assert not (tmp_path / "hf").exists()


# What the format cannot express, and what must be kept


def test_groups_by_frame_cannot_be_expressed(tmp_path, data_config):
    folder = tokenizer(tmp_path / "tokenizer", 320)
    data = data_config(tokenizer=folder, image_groups="frame")
    save_run(tmp_path / "run", small(), data)
    with pytest.raises(HfError, match="image_groups = 'frame' cannot be expressed"):
        convert.orbax_to_hf(str(tmp_path / "run"), tmp_path / "hf", layout="released", dtype=None, max_positions=None)
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(("asked", "found"), [(None, 4096), (99, 99)])
def test_the_longest_sequence_stays_what_it_was_unless_asked(tmp_path, asked, found):
    c = KINDS["qwen3_tied"]
    convert.hf_to_orbax(
        str(write_hf(tmp_path / "hf", c, parameters(c))), tmp_path / "orbax"
    )  # its config.json has 4,096
    convert.orbax_to_hf(str(tmp_path / "orbax"), tmp_path / "back", layout="released", dtype=None, max_positions=asked)
    text = json.loads((tmp_path / "back" / "config.json").read_text())["text_config"]
    assert text["max_position_embeddings"] == found


def test_copies_of_a_url_are_removed_after_reading(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "copies"))
    monkeypatch.setattr(fetch.tempfile, "tempdir", None)
    (tmp_path / "copies").mkdir()
    c = KINDS["qwen3_tied"]
    bucket = fsspec.filesystem("memory")
    for path in write_hf(tmp_path / "hf", c, parameters(c)).iterdir():
        bucket.pipe(f"/copied/{path.name}", path.read_bytes())
    convert.hf_to_orbax("memory://copied", tmp_path / "orbax")
    assert list((tmp_path / "copies").iterdir()) == []
