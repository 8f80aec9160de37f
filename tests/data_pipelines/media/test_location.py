"""Locations: names stay below their root; files, archive entries, remote files and bytes are read alike."""

import os
import pickle
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image

from data_pipelines.errors import MediaError
from data_pipelines.media.image import load_image
from data_pipelines.media.location import InMemory, Location
from data_pipelines.media.video import decode_frames, probe
from tests.data_pipelines.media.videos import BIKES, WHOLE


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An ArrayRecord file with a text, the clip and a photo."""
    path = tmp_path_factory.mktemp("prepared") / "media-00000-of-00001.array_record"
    photo = path.parent / "a.png"
    Image.new("RGB", (5, 4), (9, 8, 7)).save(photo)
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for entry in (b"hello", Path(BIKES).read_bytes(), photo.read_bytes()):
        writer.write(entry)
    writer.close()
    return path


@pytest.fixture
def bucket():
    """A folder with the clip in a file system that is not a local disk."""
    with fsspec.open("memory://bucket/clips/a.mp4", "wb") as file:
        file.write(Path(BIKES).read_bytes())
    yield "memory://bucket"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_a_file_below_a_folder():
    location = Location("experiments", "street/bikes.mp4")
    assert location.source() == BIKES == str(location)
    assert location.file == "bikes.mp4"
    assert pickle.loads(pickle.dumps(location)) == location


def test_a_file_that_the_user_named(tmp_path):
    assert Location.of(tmp_path / "a.png").file == "a.png"
    os.symlink(os.path.abspath(BIKES), tmp_path / "link.mp4")
    assert probe(Location.of(tmp_path / "link.mp4").source()) == WHOLE


NAMES = ["", "/etc/hosts", ".", "../a.png", "a/../../b.png", "a\0.png", "../m.array_record#0"]
NAMES += [
    "link.mp4::x://y",
    "http://127.0.0.1/a.mp4",
    "file:///etc/hosts",
    "zip://a::b.zip",
    "a::b",
    "x://m.array_record#0",
]


@pytest.mark.parametrize("root", ["some/folder", "memory://bucket"])
@pytest.mark.parametrize("name", NAMES)
def test_a_name_never_leaves_its_root(root, name):
    with pytest.raises(MediaError, match=f"media have a relative name and stay inside {root}") as refused:
        Location(root, name)
    assert refused.value.reason == "bad_record"


@pytest.mark.parametrize("url", ["nothing://a/b.mp4", "s3://ann:secret@bucket/b.mp4?signature=secret"])
def test_an_unknown_kind_of_url_is_an_error_of_its_file_without_credentials(url, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MediaError, match=r"b\.mp4: cannot be read") as refused:
        Location.of(url).source()
    assert refused.value.reason == "unreadable" and "secret" not in str(refused.value)


def test_a_link_never_leaves_its_root(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.txt").write_text("x")
    os.symlink(tmp_path / "secret.txt", tmp_path / "root" / "a.png")
    with pytest.raises(MediaError, match=r"root/a\.png: media .* stay inside"):
        Location(str(tmp_path / "root"), "a.png").source()


@pytest.mark.parametrize("name", ["none.png", "none.array_record#0"])
def test_a_missing_file_raises(tmp_path, name):
    with pytest.raises(MediaError, match="no such file") as missing:
        Location(str(tmp_path), name).source()
    assert missing.value.reason == "no_file"


def test_an_entry_of_an_archive(archive):
    clip, photo = (Location(str(archive.parent), f"{archive.name}#{k}") for k in (1, 2))
    assert probe(clip.source()) == WHOLE
    one, other = (next(decode_frames(source, [4.0])) for source in (clip.source(), BIKES))
    np.testing.assert_array_equal(one, other)
    assert (load_image(photo.source()) == (9, 8, 7)).all()
    with pytest.raises(MediaError, match=r"array_record#0: not a video"):
        probe(Location(str(archive.parent), f"{archive.name}#0").source())
    with pytest.raises(MediaError, match=r"array_record#3: ") as missing:
        Location(str(archive.parent), f"{archive.name}#3").source()
    assert missing.value.reason == "no_file"


def test_a_remote_file(bucket):
    assert probe(Location(bucket, "clips/a.mp4").source()) == WHOLE
    assert probe(Location.of(f"{bucket}/clips/a.mp4").source()) == WHOLE
    with pytest.raises(MediaError, match=r"memory://bucket/clips/b\.mp4: no such file") as missing:
        Location(bucket, "clips/b.mp4").source()
    assert missing.value.reason == "no_file"


def test_a_remote_file_that_cannot_be_read(bucket, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("the connection is down")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "_open", fail)
    with pytest.raises(MediaError, match=r"cannot be read \(the connection is down\)") as broken:
        Location(bucket, "clips/a.mp4").source()
    assert broken.value.reason == "unreadable"


def test_bytes_are_decoded_like_a_file(archive):
    clip = InMemory("upload.mp4", Path(BIKES).read_bytes())
    assert probe(clip.source()) == WHOLE
    for decoded, expected in zip(
        decode_frames(clip.source(), [0.0, 4.0]), decode_frames(BIKES, [0.0, 4.0]), strict=True
    ):
        np.testing.assert_array_equal(decoded, expected)
    photo = InMemory("upload.png", (archive.parent / "a.png").read_bytes())
    np.testing.assert_array_equal(load_image(photo.source()), load_image(archive.parent / "a.png"))


def test_bytes_are_pickled_and_every_source_starts_at_their_start():
    clip = InMemory("upload.mp4", b"abc")
    copy = pickle.loads(pickle.dumps(clip))
    assert copy == clip
    assert [copy.source().read() for _ in range(2)] == [b"abc", b"abc"]


@pytest.mark.parametrize(
    ("data", "problem", "reason"),
    [(b"", "the file is empty", "empty_file"), (b"hello", "not a", "not_media")],
)
def test_errors_about_bytes_have_their_name(data, problem, reason):
    broken = InMemory("upload 7", data)
    assert str(broken) == "upload 7"
    for decode in (probe, load_image):
        with pytest.raises(MediaError, match=f"^upload 7: {problem}") as caught:
            decode(broken.source())
        assert caught.value.reason == reason
