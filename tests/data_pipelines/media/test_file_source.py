"""Sources of decoders: paths and files in memory, with a name for errors."""

import io
from pathlib import Path

import pytest

from data_pipelines.errors import MediaError
from data_pipelines.media.file_source import NamedBytes, check_source, source_name
from data_pipelines.media.image import load_image


def test_names_of_sources():
    assert source_name("clips/a.mp4") == source_name(Path("clips/a.mp4")) == "clips/a.mp4"
    assert source_name(NamedBytes(b"x", "media.array_record#17")) == "media.array_record#17"
    assert source_name(io.BytesIO(b"x")) == "a file without a name"


def test_paths_are_returned_as_text(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    assert check_source(tmp_path / "a.mp4") == str(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match=r"b\.mp4: no such file") as missing:
        check_source(tmp_path / "b.mp4")
    assert missing.value.reason == "no_file"


def test_files_in_memory_are_returned_at_their_start():
    source = NamedBytes(b"abc", "entry 3")
    source.read()
    assert check_source(source) is source and source.read() == b"abc"


def test_bytes_without_a_byte_raise():
    with pytest.raises(MediaError, match="entry 3: the file is empty"):
        load_image(NamedBytes(b"", "entry 3"))
