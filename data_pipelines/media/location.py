"""Where a medium is: a file below a folder or URL, an archive entry, a file anywhere, or bytes in memory.

    Location("gs://bucket/clips", "street/a.mp4")                      a file below a folder, local or remote
    Location("prepared/video", "media-00000.array_record#17") entry 17 of an archive
    Location.of("/home/ann/a.mp4")                                     a file that the user named, anywhere
    InMemory("upload.mp4", b"...")                                     bytes

Records are untrusted data: the name in a record cannot refer to a file outside the root.
"""

import dataclasses
import os
import re
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import fsspec

from data_pipelines.errors import MediaError
from data_pipelines.media import archive
from data_pipelines.media.file_source import NamedBytes

_ARCHIVE_ENTRY = re.compile(r"(.+\.array_record)#(\d+)")


@dataclasses.dataclass(frozen=True)
class Location:
    """A medium `name` below `root`, a folder or URL. `root` None: the user gave `name`, any path or URL.

    Raises MediaError if the name is empty, or if it is absolute or contains "..", "://" or "::" below a root. fsspec
    reads "a::b" as a chain of two file systems.
    """

    root: str | None
    name: str

    @classmethod
    def of(cls, path: str | os.PathLike) -> "Location":
        """A file that the user named, anywhere."""
        return cls(None, os.fspath(path))

    def __post_init__(self):
        parts = PurePosixPath(self.name).parts
        leaves_root = ".." in parts or PurePosixPath(self.name).is_absolute() or "://" in self.name or "::" in self.name
        if not parts or "\0" in self.name or (self.root is not None and leaves_root):
            raise MediaError(f"{self.name!r}: {self._name_rule()}", "bad_record")

    def __str__(self) -> str:
        return self.name if self.root is None else os.path.join(self.root, self.name)

    @property
    def file(self) -> str:
        """The name without its folders: "street/a.mp4" -> "a.mp4"."""
        return PurePosixPath(self.name).name

    def source(self) -> str | BinaryIO:
        """What decoders read: the path of a local file; an archive entry or remote file as a file in memory.

        Raises MediaError if there is no such file or entry, or if a symbolic link leads out of the root.
        """
        entry = _ARCHIVE_ENTRY.fullmatch(str(self))
        path = entry[1] if entry else str(self)
        if "://" in path:
            return NamedBytes(archive.read_entry(path, int(entry[2])) if entry else self._download(), str(self))
        # Links are resolved first: the file that is opened must be below the root, not only its name.
        if self.root is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root)):
            raise MediaError(f"{self}: {self._name_rule()}", "bad_record")
        if not os.path.isfile(path):
            raise MediaError(f"{self}: no such file", "no_file")
        return NamedBytes(archive.read_entry(path, int(entry[2])), str(self)) if entry else path

    def _download(self) -> bytes:
        try:
            with fsspec.open(str(self), "rb") as remote:
                return remote.read()
        except FileNotFoundError as error:
            raise MediaError(f"{self}: no such file", "no_file") from error
        except (OSError, ImportError, ValueError) as error:  # its package is missing; an unknown kind of URL
            raise MediaError(f"{self}: cannot be read ({error})", "unreadable") from error

    def _name_rule(self) -> str:
        return "media have a relative name" + ("" if self.root is None else f" and stay inside {self.root}")


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A medium given as the bytes of its file; `name` is its name in errors."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name

    def source(self) -> BinaryIO:
        """The bytes as a file."""
        return NamedBytes(self.data, self.name)
