"""Names of media stay below their root; files, archives and buckets are read alike."""

import os
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image

from molmo2_jax.data.failure import ExampleError, MediaError
from molmo2_jax.data.image import load_image
from molmo2_jax.data.media import ImageMedium, Location, VideoMedium, open_image, open_video, video_medium
from molmo2_jax.data.source import NamedBytes
from molmo2_jax.data.video import decode_frames, probe
from tests.data.videos import BIKES, WHOLE


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An ArrayRecord of a text, the clip and a photo."""
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
    """A folder of a file system that is not this machine's disk, with the clip in it."""
    with fsspec.open("memory://bucket/clips/a.mp4", "wb") as file:
        file.write(Path(BIKES).read_bytes())
    yield "memory://bucket"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_a_file_below_a_folder():
    location = Location("experiments", "street/bikes.mp4")
    assert location.source() == BIKES == str(location)
    assert location.file == "bikes.mp4"
    assert pickle.loads(pickle.dumps(location)) == location


def test_a_file_somebody_named(tmp_path):
    assert Location.of(tmp_path / "a.png").file == "a.png"
    os.symlink(os.path.abspath(BIKES), tmp_path / "link.mp4")
    assert probe(Location.of(tmp_path / "link.mp4").source()) == WHOLE


@pytest.mark.parametrize("name", ["", "/etc/hosts", ".", "../a.png", "a/../../b.png", "a\0.png", "../m.array_record#0"])
def test_a_name_never_leaves_its_root(name):
    with pytest.raises(MediaError, match="media have a relative name and stay inside some/folder") as refused:
        Location("some/folder", name)
    assert refused.value.reason == "bad_record"


def test_a_link_never_leaves_its_root(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.txt").write_text("x")
    os.symlink(tmp_path / "secret.txt", tmp_path / "root" / "a.png")
    with pytest.raises(MediaError, match=r"root/a\.png: media .* stay inside"):
        Location(str(tmp_path / "root"), "a.png").source()


@pytest.mark.parametrize("name", ["none.png", "none.array_record#0"])
def test_what_is_not_there(tmp_path, name):
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


def test_a_file_of_a_bucket(bucket):
    assert probe(Location(bucket, "clips/a.mp4").source()) == WHOLE
    assert probe(Location.of(f"{bucket}/clips/a.mp4").source()) == WHOLE
    with pytest.raises(MediaError, match=r"memory://bucket/clips/b\.mp4: no such file") as missing:
        Location(bucket, "clips/b.mp4").source()
    assert missing.value.reason == "no_file"


def test_a_bucket_that_fails(bucket, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("the line is down")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "_open", fail)
    with pytest.raises(MediaError, match=r"cannot be read \(the line is down\)") as broken:
        Location(bucket, "clips/a.mp4").source()
    assert broken.value.reason == "unreadable"


def test_bytes_without_a_byte():
    with pytest.raises(MediaError, match="entry 3: the file is empty"):
        load_image(NamedBytes(b"", "entry 3"))


def test_open_video():
    location = Location.of(BIKES)
    assert open_video(location, None) == VideoMedium(location, 640, 272, 10.0, 0.0, 10.0, None)
    medium = open_video(location, (3.04, 7.44))
    assert (medium.start, medium.end, medium.size) == (3.04, 7.44, (640, 272))


@pytest.mark.parametrize("clip", [(-1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (2.0, 11.0), (float("nan"), 2.0)])
def test_a_clip_outside_its_video(clip):
    with pytest.raises(ExampleError, match="is empty or not inside the video, which lasts 10 s") as refused:
        video_medium(Location.of(BIKES), (640, 272), 10.0, clip, None)
    assert refused.value.reason == "bad_time"


def test_open_image(archive):
    location = Location(str(archive.parent), "a.png")
    assert open_image(location) == ImageMedium(location, (5, 4))
