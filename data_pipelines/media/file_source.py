"""What decoders read: a local path, or a seekable file in memory that has a name.

"clips/a.mp4"                                   a path: ffmpeg and Pillow read only the parts they need
NamedBytes(b"...", "media.array_record#17")     an archive entry or a remote file, read completely
"""

import io
import os
from typing import BinaryIO

from data_pipelines.errors import MediaError

Source = str | os.PathLike | BinaryIO


class NamedBytes(io.BytesIO):
    """Bytes as a file. Errors contain its `name` in place of a path."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name


def source_name(source: Source) -> str:
    """The name of a source in errors: its path, or the name of the file object."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", "a file without a name"))


def check_source(source: Source) -> str | BinaryIO:
    """The source as a path, or as a file at its start. Raises MediaError if it does not exist or is empty."""
    if isinstance(source, (str, os.PathLike)):
        source = os.fspath(source)
        if not os.path.isfile(source):
            raise MediaError(f"{source}: no such file", "no_file")
        size = os.path.getsize(source)
    else:
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
    if size == 0:
        raise MediaError(f"{source_name(source)}: the file is empty", "empty_file")
    return source
