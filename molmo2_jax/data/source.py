"""What decoders read: a local path, or a seekable file in memory that knows its name.

"clips/a.mp4"                                   a path: ffmpeg and Pillow read only what they need of it
NamedBytes(b"...", "media.array_record#17")     an entry of an archive, or a file of a bucket, read whole
"""

import io
import os
from typing import BinaryIO

from molmo2_jax.data.failure import MediaError

Source = str | os.PathLike | BinaryIO


class NamedBytes(io.BytesIO):
    """Bytes as a file whose `name` stands in errors, where a path would."""

    def __init__(self, data: bytes, name: str):
        super().__init__(data)
        self.name = name


def name_of(source: Source) -> str:
    """What errors call a source: its path, or the name of a file object that has one."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    return str(getattr(source, "name", "a file without a name"))


def rewound(source: Source) -> str | BinaryIO:
    """The source as a path or as a file at its start. Raises MediaError where there is none, or not one byte in it."""
    if isinstance(source, (str, os.PathLike)):
        source = os.fspath(source)
        if not os.path.isfile(source):
            raise MediaError(f"{source}: no such file", "no_file")
        size = os.path.getsize(source)
    else:
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
    if size == 0:
        raise MediaError(f"{name_of(source)}: the file is empty", "empty_file")
    return source
