"""Folders, URLs and hub names as local folders, without a network: memory:// is the bucket, a function is the hub."""

import builtins
import pathlib
from types import SimpleNamespace

import fsspec
import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from molmo2_jax.weights.hf import fetch
from molmo2_jax.weights.hf.config import HfError
from molmo2_jax.weights.hf.fetch import local_folder

CONTENTS = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": b"one",
    "model.safetensors.index.json": b"index",
    "chat_template.jinja": b"template",
    "merges.txt": b"merges",
    "pytorch_model.bin": b"a pickle",
    "modeling_molmo2.py": b"code",
    "README.md": b"words",
    "original/consolidated.safetensors": b"another copy",
}
WANTED = sorted(name for name in CONTENTS if not name.endswith((".bin", ".py", ".md")) and "/" not in name)


@pytest.fixture
def bucket():
    """URL of a folder with CONTENTS."""
    files = fsspec.filesystem("memory")
    for name, content in CONTENTS.items():
        files.pipe_file(f"/bucket/model/{name}", content)
    yield "memory://bucket/model"
    files.rm("/bucket", recursive=True)
    fetch.clear_copies()


def test_a_folder_is_itself(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert local_folder(str(tmp_path)) == tmp_path
    monkeypatch.chdir(tmp_path)  # also where it could be a name on the hub
    assert local_folder("org/name") == pathlib.Path("org/name")


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_url_is_copied_without_code_and_pickles(bucket, slash):
    folder = local_folder(bucket + slash)
    assert sorted(path.name for path in folder.iterdir()) == WANTED
    assert all((folder / name).read_bytes() == CONTENTS[name] for name in WANTED)


def test_of_a_url_only_the_files_that_are_wanted_are_copied(bucket):
    names = {path.name for path in local_folder(bucket, fetch.CONFIG_FILES).iterdir()}
    assert names == {name for name in WANTED if name.endswith(".json")}
    assert local_folder(bucket) != local_folder(bucket, fetch.CONFIG_FILES)


def test_a_url_is_copied_once(bucket):
    assert local_folder(bucket) == local_folder(bucket)


@pytest.mark.parametrize("url", ["nosuch://bucket/model", "memory://bucket/gone", "file:///no/such/folder"])
def test_a_url_that_cannot_be_read_is_named(bucket, url):
    with pytest.raises(HfError, match=f"^{url}: cannot be read "):
        local_folder(url)


def test_a_url_without_any_of_the_files_is_named(bucket):
    fsspec.filesystem("memory").pipe_file("/bucket/other/notes.md", b"")
    with pytest.raises(HfError, match=r"^memory://bucket/other: cannot be read \(it holds none of \*\.json, "):
        local_folder("memory://bucket/other")


def test_a_copy_that_fails_is_not_kept(bucket, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch.tempfile, "tempdir", str(tmp_path))

    def get_file(self, path, to, **_):
        if "safetensors" in path:
            raise ConnectionResetError("connection lost")
        pathlib.Path(to).write_bytes(b"")

    with monkeypatch.context() as broken:
        broken.setattr(type(fsspec.filesystem("memory")), "get_file", get_file)
        with pytest.raises(HfError, match=f"^{bucket}: cannot be read .connection lost"):
            local_folder(bucket)
    assert list(tmp_path.iterdir()) == []
    assert (local_folder(bucket) / "config.json").is_file()  # and the next call copies it again


def test_a_missing_package_for_a_bucket_is_named(monkeypatch):
    real = builtins.__import__

    def without_gcsfs(name, *args, **kwargs):
        if name.split(".")[0] == "gcsfs":
            raise ImportError("No module named 'gcsfs'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_gcsfs)
    with pytest.raises(HfError, match=r"^gs://bucket/model: cannot be read .*gcsfs"):
        local_folder("gs://bucket/model")


# The hub


def test_a_hub_name_is_what_the_hub_keeps(monkeypatch, tmp_path):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert local_folder("Qwen/Qwen3-8B") == tmp_path
    assert asked == [("Qwen/Qwen3-8B", ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"])]
    local_folder("Qwen/Qwen3-8B", fetch.CONFIG_FILES)
    assert asked[1:] == [("Qwen/Qwen3-8B", ["*.json"])]


ANSWER = SimpleNamespace(headers={}, request=None)
ERRORS = [
    LocalEntryNotFoundError("no connection"),
    RepositoryNotFoundError("no such name", response=ANSWER),
    GatedRepoError("closed", response=ANSWER),
    OSError("disk full"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_failed_download_is_named(monkeypatch, error):
    def snapshot_download(name, allow_patterns):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(HfError, match=r"^Qwen/Qwen3-8B: not a local folder, .* check the name") as raised:
        local_folder("Qwen/Qwen3-8B")
    assert str(error) in str(raised.value)


def test_without_a_connection_the_name_is_in_the_message(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HfError, match=r"^nobody/nothing-of-this-name: not a local folder"):
        local_folder("nobody/nothing-of-this-name")


@pytest.mark.parametrize("name", ["../export", "a--b/c", "-a/b", "a/" + "b" * 100])
def test_a_path_that_cannot_be_a_name_is_not_asked_for(monkeypatch, name):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HfError, match=f"^{name}: not a local folder"):
        local_folder(name)


@pytest.mark.parametrize("name", ["export", "a/b/c", "/no/such/folder", "a b/c", "./a/b", "~"])
def test_a_source_of_no_kind_is_named(name):
    with pytest.raises(HfError, match=f"^{name}: no such folder, and neither a URL .* nor a name on the hub"):
        local_folder(name)


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(HfError, match="no such folder"):
        local_folder(str(tmp_path / "model.safetensors"))


def test_credentials_of_a_url_are_not_printed(capsys):
    with pytest.raises(HfError, match="nothing://host/model: cannot be read") as error:
        local_folder("nothing://ann:secret@host/model?key=secret")
    assert "secret" not in str(error.value) + capsys.readouterr().err
