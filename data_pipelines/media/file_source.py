"""What decoders read: a local path, or a seekable file in memory that has a name.

"clips/a.mp4"                                   a path: ffmpeg and Pillow read only the parts they need
NamedBytes(b"...", "media.array_record#17")     an archive entry or a remote file, read completely

Decoders get an open file, never a path: ffmpeg would open "concat:a|b" or "http:…" itself.
"""

import contextlib
import io
import os
from collections.abc import Iterator
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


@contextlib.contextmanager
def open_source(source: Source) -> Iterator[BinaryIO]:
    """The source as a file at its start. Raises MediaError if it does not exist, cannot be opened or is empty."""
    name = source_name(source)
    with contextlib.ExitStack() as opened:
        if isinstance(source, (str, os.PathLike)):
            if not os.path.isfile(source):  # a pipe or a device would never end
                raise MediaError(f"{name}: no such file", "no_file")
            try:
                source = opened.enter_context(open(source, "rb"))
            except OSError as error:
                raise MediaError(f"{name}: cannot be opened ({error.strerror})", "unreadable") from error
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        if size == 0:
            raise MediaError(f"{name}: the file is empty", "empty_file")
        yield source
