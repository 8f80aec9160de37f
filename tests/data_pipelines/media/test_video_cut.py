"""Cut files: an incomplete download raises, so that half a video is never trained on."""

import av
import numpy as np
import pytest

from data_pipelines.errors import MediaError
from data_pipelines.media.video import decode_frames, probe
from tests.data_pipelines.media.videos import BIKES, WHOLE, copy, draw


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Cut the clip, with its index at the start or end of the file, to a number of bytes (negative: from the end)."""
    folder = tmp_path_factory.mktemp("cut")
    options = {"movflags": "faststart"}
    whole = {
        "first": copy(folder / "first.mp4", options).read_bytes(),
        "last": copy(folder / "last.mp4").read_bytes(),
        "mkv": copy(folder / "whole.mkv").read_bytes(),
        "avi": draw(folder / "whole.avi", range(0, 1200, 40)).read_bytes(),
    }
    assert whole["first"].index(b"moov") < whole["first"].index(b"mdat")
    assert whole["last"].index(b"moov") > whole["last"].index(b"mdat")

    def write(layout, size):
        path = folder / f"cut_{layout}.{layout if layout in ('mkv', 'avi') else 'mp4'}"
        path.write_bytes(whole[layout][:size])
        return path

    return write


@pytest.mark.parametrize("size", [1, 40, 1000, 5000, 50_000, 250_000, 500_000, -5000, -100, -1])
def test_cut_with_the_index_first(cut, size):
    with pytest.raises(MediaError, match=r"cut_first\.mp4: "):
        probe(cut("first", size))


@pytest.mark.parametrize("size", [1, 40, 1000, 5000, 50_000, 250_000, 500_000, -3000, -2000, -1000, -500, -200])
def test_cut_with_the_index_last(cut, size):
    with pytest.raises(MediaError, match=r"cut_last\.mp4: "):
        probe(cut("last", size))


def test_cut_between_two_packets(cut):
    """No packet is damaged there; only the index shows that frames are missing."""
    with av.open(BIKES) as container:
        sizes = [packet.size for packet in container.demux(video=0)]
    first = len(cut("first", None).read_bytes()) - sum(sizes)
    with pytest.raises(MediaError, match=r"cut off: it ends after 100 frames \(.* s\), its container lists more"):
        probe(cut("first", first + sum(sizes[:100])))


@pytest.mark.parametrize(
    "layout, sizes", [("mkv", (1, 1000, 50_000, 250_000, 400_000)), ("avi", (1, 4000, 9000, 13_000))]
)
def test_cut_in_other_containers(cut, layout, sizes):
    for size in sizes:
        with pytest.raises(MediaError, match=f"cut_{layout}"):
            probe(cut(layout, size))


def test_the_complete_files_are_accepted(cut):
    assert probe(cut("first", None)) == probe(cut("last", None)) == probe(cut("mkv", None)) == WHOLE
    assert probe(cut("avi", None)).frames == 30


@pytest.mark.parametrize("layout", ["first", "mkv"])
def test_a_cut_file_gives_its_frames_and_then_raises(cut, layout):
    early = list(decode_frames(BIKES, [0.0, 1.0]))
    frames = decode_frames(cut(layout, 250_000), [0.0, 1.0, 9.0])
    np.testing.assert_array_equal(next(frames), early[0])
    np.testing.assert_array_equal(next(frames), early[1])
    with pytest.raises(MediaError, match=f"cut_{layout}"):
        next(frames)
