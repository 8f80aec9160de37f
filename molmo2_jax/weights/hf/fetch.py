"""Fetching a Hugging Face directory: from this machine, a bucket or the hub, to a local folder.

A source is one of

    runs/export                a folder
    gs://bucket/Qwen3-8B       copied to a temporary folder (in TMPDIR) that exists until clear_copies() or the end of
                               the process; any URL that fsspec knows, gs:// with the package gcsfs
    Qwen/Qwen3-8B              a name on the hub, kept in huggingface_hub's cache
"""

import pathlib
import re
import tempfile
from collections.abc import Sequence

import fsspec
import huggingface_hub
import tqdm

from data_pipelines.errors import without_credentials
from molmo2_jax.weights.hf.config import HfError

CONFIG_FILES = ("*.json",)
# Weights, configs, tokenizers and templates; never pickled weights or code.
FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")

_copies: dict[tuple[str, Sequence[str]], tempfile.TemporaryDirectory] = {}

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(source: str, files: Sequence[str] = FILES) -> pathlib.Path:
    """A local folder with the files of `source` that match one of the patterns `files`.

    Raises:
      HfError: the folder, bucket or name does not exist or cannot be reached.
    """
    if pathlib.Path(source).is_dir():
        return pathlib.Path(source)
    if "://" in source:
        if (source, files) not in _copies:  # a config may name a bucket twice: for its architecture and for its weights
            _copies[source, files] = _copy_url(source, files)
        return pathlib.Path(_copies[source, files].name)
    if _HUB_NAME.fullmatch(source):
        return _download_from_hub(source, files)
    raise HfError(f"{source}: no such folder, and neither a URL (gs://…) nor a name on the hub (Qwen/Qwen3-8B)")


def clear_copies() -> None:
    """Removes the temporary folders that URLs were copied to."""
    while _copies:
        _copies.popitem()[1].cleanup()


def _copy_url(url: str, patterns: Sequence[str]) -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="molmo2-")
    try:
        files, root = fsspec.core.url_to_fs(url)
        names = [pathlib.PurePosixPath(path).name for path in files.ls(root, detail=False)]
        wanted = [name for name in names if any(pathlib.PurePath(name).match(pattern) for pattern in patterns)]
        if not wanted:
            raise FileNotFoundError(f"it holds none of {', '.join(patterns)}")
        for name in tqdm.tqdm(wanted, desc=without_credentials(url), unit="file"):
            files.get_file(f"{root}/{name}", str(pathlib.Path(folder.name) / name))
    except (OSError, ImportError, ValueError) as error:  # unreachable; its package is missing; an unknown kind of URL
        folder.cleanup()
        raise HfError(without_credentials(f"{url}: cannot be read ({error})")) from error
    return folder


def _download_from_hub(name: str, patterns: Sequence[str]) -> pathlib.Path:
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # an unknown or gated name, no connection; not a valid name
        raise HfError(
            f"{name}: not a local folder, and it cannot be downloaded from the hub; check the name, the connection, "
            f"and for gated models `hf auth login` ({error})"
        ) from error
