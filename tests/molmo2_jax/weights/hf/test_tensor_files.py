"""Safetensors directories: reading, writing, and every way in which a directory can be damaged."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from molmo2_jax.weights.hf import tensor_files
from molmo2_jax.weights.hf.config import HfError
from molmo2_jax.weights.hf.tensor_files import INDEX, SINGLE, TensorFiles, atomic_directory, write_tensors

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
RNG = np.random.default_rng(0)
TENSORS = {
    "a": RNG.normal(size=(7, 3)).astype(np.float32),
    "b": RNG.normal(size=(5,)).astype(BFLOAT16),
    "c": RNG.normal(size=(2, 3, 4)).astype(np.float16),
    "d": RNG.normal(size=(40, 2)).astype(np.float32),
}


def write(folder, tensors=TENSORS, progress=lambda n: None):
    folder.mkdir(exist_ok=True)
    arrays = {key: jax.ShapeDtypeStruct(x.shape, x.dtype) for key, x in tensors.items()}
    write_tensors(folder, arrays, tensors.__getitem__, progress)
    return folder


@pytest.fixture
def many(tmp_path, monkeypatch):
    """TENSORS in three files: a and b, c, d (larger than a file may be)."""
    monkeypatch.setattr(tensor_files, "SHARD_BYTES", 100)
    return write(tmp_path / "many")


def same(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.dtype == expected.dtype and np.array_equal(found, expected)


# Writing and reading


def test_a_small_model_is_one_file(tmp_path):
    done = []
    folder = write(tmp_path / "one", progress=done.append)
    assert [path.name for path in folder.iterdir()] == [SINGLE]
    assert all(same(x, TENSORS[key]) for key, x in safetensors.numpy.load_file(folder / SINGLE).items())
    assert sum(done) == sum(x.nbytes for x in TENSORS.values())
    with safetensors.safe_open(folder / SINGLE, "np") as file:
        assert file.metadata() == {"format": "pt"}  # without which transformers refuses a file


def test_a_large_model_is_several_files_with_an_index(many):
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(path.name for path in many.iterdir()) == [*names, INDEX]
    index = json.loads((many / INDEX).read_text())
    assert index["weight_map"] == {"a": names[0], "b": names[0], "c": names[1], "d": names[2]}
    assert index["metadata"] == {"total_size": sum(x.nbytes for x in TENSORS.values())}
    assert set(safetensors.numpy.load_file(many / names[0])) == {"a", "b"}


def test_tensors_are_read_from_any_file(many):
    found = TensorFiles(many)
    assert {key: (a.shape, a.dtype) for key, a in found.arrays.items()} == {
        key: (x.shape, x.dtype) for key, x in TENSORS.items()
    }
    assert all(same(found.read(key), x) for key, x in TENSORS.items())
    assert found.where("c") == f"{many / 'model-00002-of-00003.safetensors'}: tensor c"


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        (slice(None), (7, 3)),
        (slice(2, 3), (1, 3)),
        (slice(5, None), (2, 3)),
        (slice(-3, -1), (2, 3)),
        (slice(6, 99), (1, 3)),
    ],
)
def test_rows_are_read_as_a_slice_says(tmp_path, rows, shape):
    found = TensorFiles(write(tmp_path / "one")).read("a", rows)
    assert found.shape == shape and same(found, TENSORS["a"][rows])


def test_views_are_written_in_their_own_order(tmp_path):
    wide = RNG.normal(size=(300, 500)).astype(np.float32)
    views = {"transposed": wide.T, "every other": wide[::2, ::-1]}
    write(tmp_path / "out", views)
    assert all(same(TensorFiles(tmp_path / "out").read(key), x) for key, x in views.items())


@pytest.mark.parametrize("value", [np.zeros((3, 7), np.float32), np.zeros((7, 3), np.float16)])
def test_a_tensor_of_another_shape_or_dtype_than_expected(tmp_path, value):
    arrays = {"a": jax.ShapeDtypeStruct((7, 3), np.float32)}
    with pytest.raises(ValueError, match=r"^a: float.* where ShapeDtypeStruct.* is expected"):
        write_tensors(tmp_path, arrays, lambda _: value, lambda n: None)


# Errors


def refused(folder, message):
    with pytest.raises(HfError, match=message):
        TensorFiles(folder)


def test_a_folder_without_weights(tmp_path):
    refused(tmp_path, rf"{tmp_path}: neither {INDEX} nor {SINGLE} is there")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    refused(tmp_path, "safetensors files only")
    refused(tmp_path / "nothing", "neither")


def test_a_file_that_was_cut_off(tmp_path):
    path = write(tmp_path / "out") / SINGLE
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in (0, 4, 8, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path.parent, rf"^{path}: damaged, or cut off")
    path.write_bytes(b"\x80\x02}q" + whole)  # a pickle, as .bin files are
    refused(path.parent, rf"^{path}: damaged")
    path.write_bytes(whole)
    assert same(TensorFiles(path.parent).read("d"), TENSORS["d"])


def test_a_file_that_is_cut_off_after_it_was_opened(tmp_path):
    path = write(tmp_path / "out") / SINGLE
    found = TensorFiles(path.parent)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HfError, match=f"{path}: damaged"):
        found.read("d")


def test_one_of_several_files_is_missing_or_cut_off(many):
    path = many / "model-00002-of-00003.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused(many, f"^{path}: damaged")
    path.unlink()
    refused(many, f"^{path}: the index names this file, which is missing")


def reindex(folder, change):
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def test_an_index_that_disagrees_with_a_file(many):
    first = many / "model-00001-of-00003.safetensors"
    reindex(many, lambda weights: weights.pop("b"))
    refused(many, rf"^{first}: {INDEX} disagrees: missing \[\], not in the index \['b'\]")
    reindex(many, lambda weights: weights.update(b=first.name, e=first.name))
    refused(many, rf"^{first}: {INDEX} disagrees: missing \['e'\], not in the index \[\]")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/model.safetensors", 7, None])
def test_an_index_cannot_name_files_outside_its_folder(many, name):
    (many.parent / "secret.safetensors").write_bytes((many / "model-00002-of-00003.safetensors").read_bytes())
    reindex(many, lambda weights: weights.update(c=name))
    refused(many, rf"^{many / INDEX}: tensor c is in {name!r}, which is outside this folder")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": 7}', "\x80"])
def test_a_file_that_is_not_an_index(many, text):
    (many / INDEX).write_text(text, encoding="latin-1")
    refused(many, rf"^{many / INDEX}: not an index of safetensors files")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.float64, np.bool_])
def test_tensors_of_other_dtypes_are_refused(tmp_path, dtype):
    folder = write(tmp_path / "out", TENSORS | {"e": np.zeros((2, 2), dtype)})
    refused(folder, rf"{folder / SINGLE}: tensor e is of \w+; weights are one of \['BF16', 'F16', 'F32'\]")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path, dtype, value):
    x = np.ones((9, 2), dtype)
    x[[2, 6], 1] = value
    found = TensorFiles(write(tmp_path / "out", TENSORS | {"e": x}))
    with pytest.raises(HfError, match=rf"{SINGLE}: tensor e: 2 of its values are NaN or infinite"):
        found.read("e")
    with pytest.raises(HfError, match="1 of its values"):
        found.read("e", slice(6, 9))
    assert found.read("e", slice(3, 6)).shape == (3, 2)


# Atomic directories


def test_the_folder_appears_at_the_end(tmp_path):
    target = tmp_path / "new" / "export"
    with atomic_directory(target) as unfinished:
        (unfinished / "a.txt").write_text("a")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["a.txt"]
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [HfError, KeyboardInterrupt, OSError])
def test_an_error_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(error), atomic_directory(tmp_path / "new" / "folders" / "export") as unfinished:
        (unfinished / "sub").mkdir()
        (unfinished / "sub" / "a.txt").write_text("a")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_the_files_of_a_killed_run_are_removed(tmp_path):
    target = tmp_path / "export"
    with pytest.raises(KeyboardInterrupt), atomic_directory(target) as unfinished:
        raise KeyboardInterrupt
    unfinished.mkdir()  # as if it had been killed
    (unfinished / "half.txt").write_text("half")
    with atomic_directory(target) as again:
        assert again == unfinished and not list(again.iterdir())
    assert list(target.iterdir()) == []


def test_existing_files_are_kept(tmp_path):
    (tmp_path / "file").write_text("mine")
    for target, message in {
        tmp_path: "exists; name a folder that does not exist yet",
        tmp_path / "file": "exists; name a folder that does not exist yet",
        tmp_path / "file" / "export": "cannot be created",
    }.items():
        with pytest.raises(HfError, match=f"^{target}: {message}"), atomic_directory(target):
            raise AssertionError("not reached")
    assert (tmp_path / "file").read_text() == "mine"
