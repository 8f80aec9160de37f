"""Where a Hugging Face directory comes from: this machine, a bucket or the hub; as a folder on this machine in the end.

A source is one of

    runs/export                a folder
    gs://bucket/Qwen3-8B       copied whole to a temporary folder (below TMPDIR) until forget_copies() or the end of the
                               process; any URL that fsspec knows, gs:// with the package gcsfs
    Qwen/Qwen3-8B              a name on the hub, kept in the hub's own cache
"""

import pathlib
import re
import tempfile

import fsspec
import huggingface_hub
import tqdm

from molmo2_jax.hf.config import HfError

# Weights, configs, tokenizers and templates; never pickled weights, never code.
FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")

_copies: dict[str, tempfile.TemporaryDirectory] = {}

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(source: str) -> pathlib.Path:
    """A folder with the files of `source`.

    Raises:
      HfError: there is no such folder, bucket or name, or it cannot be reached.
    """
    if pathlib.Path(source).is_dir():
        return pathlib.Path(source)
    if "://" in source:
        if source not in _copies:  # a config may name a bucket twice: for its architecture and for its numbers
            _copies[source] = _copy(source)
        return pathlib.Path(_copies[source].name)
    if _HUB_NAME.fullmatch(source):
        return _from_hub(source)
    raise HfError(f"{source}: no such folder, and neither a URL (gs://…) nor a name on the hub (Qwen/Qwen3-8B)")


def forget_copies() -> None:
    """Removes what was copied from URLs."""
    while _copies:
        _copies.popitem()[1].cleanup()


def _copy(url: str) -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="molmo2-")
    try:
        files, root = fsspec.core.url_to_fs(url)
        names = [pathlib.PurePosixPath(path).name for path in files.ls(root, detail=False)]
        wanted = [name for name in names if any(pathlib.PurePath(name).match(pattern) for pattern in FILES)]
        if not wanted:
            raise FileNotFoundError(f"nothing of {', '.join(FILES)} is there")
        for name in tqdm.tqdm(wanted, desc=url, unit="file"):
            files.get_file(f"{root}/{name}", str(pathlib.Path(folder.name) / name))
    except (OSError, ImportError, ValueError) as error:  # unreachable; no package for it; no such kind of URL
        folder.cleanup()
        raise HfError(f"{url}: cannot be read ({error})") from error
    return folder


def _from_hub(name: str) -> pathlib.Path:
    try:
        return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=list(FILES)))
    except (OSError, ValueError) as error:  # an unknown name, a closed door, a dead connection; no name at all
        raise HfError(
            f"{name}: neither a folder here nor to be had from the hub; check the name, the connection, and for gated "
            f"models `hf auth login` ({error})"
        ) from error
