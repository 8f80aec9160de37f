"""Sources of decoders: paths and files in memory, with a name for errors."""

import builtins
import io
import os
from pathlib import Path

import pytest

from data_pipelines.errors import MediaError
from data_pipelines.media.file_source import NamedBytes, open_source, source_name
from data_pipelines.media.image import load_image


def test_names_of_sources():
    assert source_name("clips/a.mp4") == source_name(Path("clips/a.mp4")) == "clips/a.mp4"
    assert source_name(NamedBytes(b"x", "media.array_record#17")) == "media.array_record#17"
    assert source_name(io.BytesIO(b"x")) == "a file without a name"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_opened_and_closed(tmp_path, kind):
    (tmp_path / "a.mp4").write_bytes(b"x")
    with open_source(kind(tmp_path / "a.mp4")) as file:
        assert file.read() == b"x"
    assert file.closed


def test_what_is_not_a_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("b.mp4", "pipe", "."):
        with pytest.raises(MediaError, match=": no such file") as missing, open_source(tmp_path / name):
            pass
        assert missing.value.reason == "no_file"


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"x")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(MediaError, match=r"a\.mp4: cannot be opened \(Permission denied\)") as broken:
        open_source(tmp_path / "a.mp4").__enter__()
    assert broken.value.reason == "unreadable"


def test_files_in_memory_are_read_from_their_start_and_stay_open():
    source = NamedBytes(b"abc", "entry 3")
    source.read()
    with open_source(source) as file:
        assert file is source and file.read() == b"abc"
    assert not source.closed


def test_bytes_without_a_byte_raise():
    with pytest.raises(MediaError, match="entry 3: the file is empty"):
        load_image(NamedBytes(b"", "entry 3"))
