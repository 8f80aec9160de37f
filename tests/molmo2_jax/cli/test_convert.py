"""`molmo2 convert` from the command line: its output, the files it writes, and its errors for broken sources."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from molmo2_jax.weights.hf import tensor_files
from molmo2_jax.weights.hf.config import write_config
from molmo2_jax.weights.hf.tensor_files import INDEX, SINGLE
from tests.molmo2_jax.models.small import KINDS, small
from tests.molmo2_jax.weights.converted import parameters, read_orbax, write_hf, write_orbax
from tests.molmo2_jax.weights.hf import configs, formats, small_gguf
from tests.molmo2_jax.weights.hf.small_hf import assert_equal

ROOT = pathlib.Path(__file__).parents[3]
C = small(tied=False)
ATT = "model.transformer.blocks.0.self_attn.att_proj.weight"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """hf/ in one file, shards/ in several, orbax/."""
    root = tmp_path_factory.mktemp("sources")
    p = parameters(C)
    write_hf(root / "hf", C, p)
    (root / "shards").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_files, "SHARD_BYTES", 110_000)
        tensors = {key: np.ascontiguousarray(x) for key, x in formats.released(p).items()}
        tensor_files.write_tensors(root / "shards", tensors, tensors.__getitem__, lambda n: None)
    shutil.copy(root / "hf" / "config.json", root / "shards")
    write_orbax(root / "orbax", C, p)
    return root


def test_a_conversion_from_a_shell(sources, tmp_path):
    """In a process of its own, into a folder whose parent does not exist yet."""
    target = tmp_path / "new" / "orbax"
    command = [
        sys.executable,
        "-m",
        "molmo2_jax.cli",
        "convert",
        f"--from=hf:{sources / 'shards'}",
        f"--to=orbax:{target}",
    ]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{target}: 45 tensors, 0.00 GB, 73,152 parameters of shards\n"
    assert "45 parameters: 100%" in result.stderr  # the bar
    assert_equal(read_orbax(target), parameters(C))


@pytest.mark.parametrize("layout", ["released", "transformers"])
@pytest.mark.parametrize("dtype", ["keep", "bfloat16"])
def test_flags_choose_names_and_dtype(molmo2, sources, tmp_path, layout, dtype):
    options = [f"--layout={layout}", f"--dtype={dtype}", "--max_positions=777"]
    status, out, err = molmo2("convert", f"--from=orbax:{sources / 'orbax'}", "--to=hf:export", *options)
    assert status == 0 and out.startswith("export: ") and "Traceback" not in err
    stored = {"keep": np.float32, "bfloat16": ml_dtypes.bfloat16}[dtype]
    expected = formats.MOLMO2[layout](parameters(C))
    found = safetensors.numpy.load_file(tmp_path / "export" / SINGLE)
    assert_equal(found, {key: x.astype(stored) for key, x in expected.items()})
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert config["text_config"]["max_position_embeddings"] == 777
    assert config["dtype"] == np.dtype(stored).name


def test_a_gguf_becomes_a_directory(molmo2, tmp_path):
    small_gguf.write(tmp_path / "model.gguf")
    status, out, _ = molmo2("convert", "--from=gguf:model.gguf", "--to=hf:export")
    assert (status, out) == (0, "export: the model of model.gguf, in float32\n")
    assert (tmp_path / "export" / SINGLE).is_file()


def after_the_bar(err: str) -> str:
    """The error message, which is printed last."""
    return err[err.index("molmo2 convert: ") :].removeprefix("molmo2 convert: ")


# Mistakes on the command line


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("hf:a", None, "flag --to=None: Flag --to must have a value other than None."),
        (None, "orbax:b", "flag --from=None: Flag --from must have a value other than None."),
        ("torch:a", "orbax:b", "--from=torch:a: must begin with hf: or orbax: or gguf:"),
        ("a", "orbax:b", "--from=a: must begin with hf: or orbax: or gguf:"),
        ("hf:", "orbax:b", "--from=hf:: must begin with hf: or orbax: or gguf:"),
        ("hf:a", "gguf:b", "--to=gguf:b: must begin with hf: or orbax:"),
        ("hf:a", "hf:b", "--from=hf:… --to=hf:… : possible are hf to orbax, orbax to hf and gguf to hf"),
        ("orbax:a", "orbax:b", "--from=orbax:… --to=orbax:… : possible are hf to orbax, orbax to hf and gguf to hf"),
        ("gguf:a", "orbax:b", "--from=gguf:… --to=orbax:… : possible are "),
        ("hf:a", "orbax:gs://bucket/b", "--to=orbax:gs://bucket/b: must be a local or mounted folder"),
        ("hf:gone", "orbax:b", "gone: no such folder, and neither a URL (gs://…) nor a name on the hub"),
        ("hf:nosuch://x/y", "orbax:b", "nosuch://x/y: cannot be read (Protocol not known: nosuch"),
        ("orbax:gone", "hf:b", "/gone: no finished checkpoint there"),
        ("gguf:gone", "hf:b", "gone: no such file"),
    ],
)
def test_a_mistake_is_one_message(molmo2, tmp_path, source, target, message):
    given = {"from": source, "to": target}
    status, out, err = molmo2("convert", *(f"--{name}={value}" for name, value in given.items() if value))
    assert (status, out) == (1, "")
    assert message in after_the_bar(err) and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--layout=mine", "--dtype=int8", "--max_positions=0", "--max_positions=many"])
def test_an_impossible_value_of_a_flag_is_named(molmo2, flag):
    status, _, err = molmo2("convert", "--from=orbax:a", "--to=hf:b", flag)
    assert status == 1 and err.startswith(f"molmo2 convert: flag {flag}")


@pytest.mark.parametrize(("source", "target"), [("hf", "orbax"), ("orbax", "hf")])
def test_an_existing_folder_is_kept(molmo2, sources, tmp_path, source, target):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    status, out, err = molmo2("convert", f"--from={source}:{sources / source}", f"--to={target}:mine")
    assert (status, out) == (1, "")
    assert err == "molmo2 convert: mine: exists; name a folder that does not exist yet\n"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_the_files_of_a_killed_run_are_removed(molmo2, sources, tmp_path):
    half = tmp_path / ".export.unfinished"
    half.mkdir()
    (half / SINGLE).write_bytes(b"half of it")
    (half / "model-00001-of-00002.safetensors").write_bytes(b"and more")
    assert molmo2("convert", f"--from=orbax:{sources / 'orbax'}", "--to=hf:export")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert {path.name for path in (tmp_path / "export").iterdir()} == {"config.json", "configuration_molmo2.py", SINGLE}


# Sources that are damaged


def rewrite(folder, change):
    tensors = safetensors.numpy.load_file(folder / SINGLE)
    change(tensors)
    tensors = {key: np.ascontiguousarray(x) for key, x in tensors.items()}
    safetensors.numpy.save_file(tensors, folder / SINGLE)


def cut(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def put_nan(tensors):
    tensors[ATT] = tensors[ATT].copy()
    tensors[ATT][3, 4] = np.nan


def put_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config))


OLMO3 = write_config(KINDS["olmo3"], 4096, "float32")
SECOND = "model-00002-of-00003.safetensors"
DAMAGE = {  # name: (source, what is done to a copy of it, the error, which names file, then tensor)
    "truncated": ("hf", lambda f: cut(f, SINGLE), f"/{SINGLE}: damaged, or cut off"),
    "a truncated shard": ("shards", lambda f: cut(f, SECOND), f"/{SECOND}: damaged, or cut off"),
    "a missing shard": (
        "shards",
        lambda f: (f / SECOND).unlink(),
        f"/{SECOND}: the index names this file, which is missing",
    ),
    "an extra tensor": (
        "hf",
        lambda f: rewrite(f, lambda t: t.update(extra=t[ATT])),
        f"/{SINGLE}: tensor extra: unknown to the molmo2",
    ),
    "a missing tensor": ("hf", lambda f: rewrite(f, lambda t: t.pop(ATT)), f": no tensor {ATT}, which the molmo2"),
    "a transposed tensor": (
        "hf",
        lambda f: rewrite(f, lambda t: t.update({ATT: t[ATT].T})),
        f"/{SINGLE}: tensor {ATT}: shape (32, 96), expected (96, 32); it is transposed",
    ),
    "a NaN": ("hf", lambda f: rewrite(f, put_nan), f"/{SINGLE}: tensor {ATT}: 1 of its values are NaN"),
    "another architecture": (
        "hf",
        lambda f: put_config(f, {"model_type": "gpt2"}),
        "/config.json: model_type is 'gpt2'",
    ),
    "another size": (
        "hf",
        lambda f: put_config(f, OLMO3),
        f"/{SINGLE}: tensor {ATT}: shape (96, 32), expected (144, 32)",
    ),
    "a base model": (
        "hf",
        lambda f: put_config(f, configs.llm_config("qwen3", C.llm)),
        "which the qwen3 of its config",
    ),
    "no config": ("hf", lambda f: (f / "config.json").unlink(), "/config.json: no such file"),
    "no weights": ("hf", lambda f: (f / SINGLE).unlink(), f": neither {INDEX} nor {SINGLE} is there"),
    "half a processor": (
        "hf",
        lambda f: (f / "processor_config.json").unlink(),
        "/processor_config.json: no such file",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_source_is_named_and_leaves_no_output(molmo2, sources, tmp_path, damage):
    name, change, message = DAMAGE[damage]
    shutil.copytree(sources / name, tmp_path / "in" / "broken")
    change(tmp_path / "in" / "broken")
    status, out, err = molmo2("convert", f"--from=hf:{tmp_path / 'in' / 'broken'}", "--to=orbax:out")
    assert (status, out) == (1, "")
    assert after_the_bar(err).startswith(f"{tmp_path / 'in' / 'broken'}") and message in after_the_bar(err)
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_base_model_is_refused(molmo2, tmp_path):
    formats.write(tmp_path / "base", configs.llm_config("qwen3", C.llm), formats.base_llm(parameters(C), "qwen3"))
    status, _, err = molmo2("convert", "--from=hf:base", "--to=orbax:out")
    assert (status, err) == (1, "molmo2 convert: base is a qwen3 model; a whole Molmo2 is needed here\n")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_damaged_checkpoint_is_named_and_leaves_no_output(molmo2, sources, tmp_path):
    shutil.copytree(sources / "orbax", tmp_path / "broken")
    for path in (tmp_path / "broken" / "params" / "ocdbt.process_0" / "d").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    status, out, err = molmo2("convert", "--from=orbax:broken", "--to=hf:out")
    assert (status, out) == (1, "")
    assert f"molmo2 convert: {tmp_path}/broken/params: parameter " in err and "is damaged" in err
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_model_that_the_format_cannot_express(molmo2, tmp_path):
    c = small(qk_norm="none")
    write_orbax(tmp_path / "orbax", c, parameters(c))
    status, out, err = molmo2("convert", "--from=orbax:orbax", "--to=hf:out")
    assert (status, out) == (1, "")
    assert err == ("molmo2 convert: small: Molmo2's Hugging Face format cannot express llm.qk_norm = 'none'\n")
    assert [path.name for path in tmp_path.iterdir()] == ["orbax"]
