"""Probing and decoding videos: complete, empty and invalid files, and the frame displayed at a time."""

import socket
import struct
import wave

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import MediaError
from data_pipelines.media import video
from data_pipelines.media.file_source import NamedBytes
from data_pipelines.media.video import VideoInfo, decode_frames, probe
from tests.data_pipelines.media.videos import BIKES, WHOLE, copy, draw, grays


@pytest.fixture(scope="module")
def all_frames():
    """Oracle: every frame of the clip with its time, decoded from the start with PyAV only."""
    with av.open(BIKES) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


# Probing


def test_probe_of_a_real_clip():
    assert probe(BIKES) == WHOLE


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "a.flv"])
def test_probe_of_other_containers(tmp_path, name):
    assert probe(copy(tmp_path / name)) == WHOLE


def test_probe_counts_from_the_first_frame(tmp_path):
    info = probe(draw(tmp_path / "late.mkv", [700, 800, 900, 1000], rate=10))
    assert (info.frames, info.duration) == (4, pytest.approx(0.4))


def test_probe_of_uneven_frames(tmp_path):
    info = probe(draw(tmp_path / "uneven.mp4", [0, 100, 1000, 1050, 2000], rate=10))
    assert info.frames == 5
    assert info.duration > 2.0


def test_probe_ignores_the_sound(tmp_path):
    """Sound that continues after the last frame does not extend the video."""
    info = probe(draw(tmp_path / "sound.mkv", range(0, 1000, 40), audio=3.0))
    assert (info.frames, info.duration) == (25, pytest.approx(1.0))


def test_trimmed_without_the_frames_before(tmp_path):
    """The header of this file still counts 25 frames, its index the 20 that it has: it is not cut off."""
    path = copy(tmp_path / "trimmed.mp4", source=draw(tmp_path / "all.mp4", range(0, 1000, 40)), earlier=0.2)
    info = probe(path)
    assert (info.frames, info.duration) == (20, pytest.approx(0.8))
    assert grays(path, [0.0, 0.1, 0.5]) == [5, 7, 17] and grays(path, [0.5]) == [17]


def test_trimmed_with_the_frames_before(tmp_path, all_frames):
    """Trimmed between keyframes: the file has 25 frames before the start, to decode the others, but not to display."""
    path = copy(tmp_path / "trimmed.mp4", earlier=1.0)
    assert probe(path) == VideoInfo(width=640, height=272, duration=9.0, frames=225)
    first, second = decode_frames(path, [0.0, 4.0])
    np.testing.assert_array_equal(first, all_frames[25][1])
    np.testing.assert_array_equal(second, all_frames[125][1])
    (second,) = decode_frames(path, [4.0])
    np.testing.assert_array_equal(second, all_frames[125][1])


@pytest.mark.parametrize("path", ["nowhere/clip.mp4", "experiments"])
def test_missing_file(path):
    with pytest.raises(MediaError, match=rf"^{path}: no such file"):
        probe(path)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.txt", "clip.srt"])
def test_text_is_not_a_video(tmp_path, name):
    (tmp_path / name).write_text("1\n00:00:01,000 --> 00:00:02,000\nhello\n" * 50)
    with pytest.raises(MediaError, match=rf"{name}: .*(not a video|no video in it)"):
        probe(tmp_path / name)


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg", "picture.mp4"])
def test_a_picture_is_not_a_video(tmp_path, name):
    Image.new("RGB", (64, 48)).save(tmp_path / name, format="JPEG" if name.endswith("jpg") else "PNG")
    with pytest.raises(MediaError, match=rf"{name}: not a video, .*formats are mov, mp4, ") as refused:
        probe(tmp_path / name)
    assert refused.value.reason == "not_media"


# Texts that ffmpeg reads as lists of other files or addresses, whatever the name of the file.
REFERENCES = {
    "concat": "ffconcat version 1.0\nfile {}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
    '<Representation id="1" mimeType="video/mp4"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
}


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize("name", ["e.txt", "e.mp4", "e.m3u8", "e.sdp", "e.mpd"])
def test_a_file_that_names_others_is_refused_without_opening_them(tmp_path, kind, name):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        for target in (copy(tmp_path / "b.mp4"), f"http://127.0.0.1:{server.getsockname()[1]}/b.mp4"):
            text = REFERENCES[kind].format(target)
            (tmp_path / name).write_text(text)
            for source in (tmp_path / name, NamedBytes(text.encode(), f"media.array_record#{name}")):
                for read in (probe, lambda source: next(decode_frames(source, [0.0]))):
                    with pytest.raises(MediaError, match=f"{name}: not a video") as refused:
                        read(source)
                    assert refused.value.reason == "not_media"
        with pytest.raises(BlockingIOError):  # no connection waits
            server.accept()


def test_sound_only(tmp_path):
    with wave.open(str(tmp_path / "sound.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(16000))
    with pytest.raises(MediaError, match=r"sound\.wav: not a video, .*formats are mov, mp4, "):
        probe(tmp_path / "sound.wav")


def test_sound_with_a_cover(tmp_path):
    """An album cover is stored as a video stream of one frame."""
    with av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as out:
        sound = out.add_stream("aac", rate=8000, layout="mono")
        cover = out.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.rate = 8000
        out.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        for packets in (cover.encode(), sound.encode(silence), sound.encode()):
            out.mux(packets)
    with pytest.raises(MediaError, match=r"song\.m4a: no video in it \(it contains a cover, audio\)"):
        probe(tmp_path / "song.m4a")


def test_empty_file(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(MediaError, match=r"empty\.mp4: the file is empty"):
        probe(tmp_path / "empty.mp4")


@pytest.mark.parametrize("name", ["none.mp4", "none.mkv"])
def test_no_frames(tmp_path, name):
    with pytest.raises(MediaError, match=rf"{name}: "):
        probe(copy(tmp_path / name, packets=0))


# Frames


@pytest.mark.parametrize(
    "times",
    [
        [0.0],
        [0.0, 0.039, 0.041, 5.0, 10.0],
        [0.01, 0.02, 0.03],
        [2.0, 2.0, 2.0],
        [7.31],
        [3.77, 9.99],
        [10.0],
        np.linspace(0, 10, 21),
        np.linspace(4.3, 6.1, 30),
    ],
)
def test_frames_are_those_displayed(all_frames, times):
    images = list(decode_frames(BIKES, times))
    assert len(images) == len(times)
    for time, image in zip(times, images, strict=True):
        assert image.dtype == np.uint8 and image.shape == (272, 640, 3)
        displayed = [picture for start, picture in all_frames if start <= time][-1]
        np.testing.assert_array_equal(image, displayed, err_msg=f"at {time}")


def test_a_seek_finds_every_frame(all_frames):
    """Keyframes are indexed by decoding time, which differs from display time: try many frames as the first."""
    for k in range(0, 250, 7):
        (image,) = decode_frames(BIKES, [all_frames[k][0] + 0.001])
        np.testing.assert_array_equal(image, all_frames[k][1], err_msg=f"frame {k}")


def test_a_late_frame_does_not_decode_the_whole_video(monkeypatch):
    decoded = []
    frames = video._decoded_frames

    def counted(*args):
        for frame in frames(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(video, "_decoded_frames", counted)
    list(decode_frames(BIKES, [9.5]))
    assert len(decoded) < 100


def test_uneven_frames(tmp_path):
    path = draw(tmp_path / "uneven.mkv", [0, 100, 1000, 1050, 2000], rate=10)
    assert grays(path, [0, 0.05, 0.1, 0.99, 1.0, 1.04, 1.06, 1.99, 2.0]) == [0, 0, 1, 1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize("name", ["late.mkv", "late.ts", "late.mp4"])
def test_times_count_from_the_first_frame(tmp_path, name):
    path = draw(tmp_path / name, [700, 800, 900, 1000], rate=10)
    assert grays(path, [0.0, 0.05, 0.1, 0.25, 0.3]) == [0, 0, 1, 2, 3]
    assert grays(path, [0.25]) == [2]


def test_reordered_frames_come_in_display_order(tmp_path):
    path = draw(tmp_path / "b.mp4", range(0, 1240, 40), options={"bf": "2", "g": "12"})
    with av.open(str(path)) as container:
        pts = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert pts != sorted(pts)
    every = np.arange(31) * 0.04 + 0.001
    assert grays(path, every) == list(range(31))
    assert [grays(path, [time])[0] for time in every] == list(range(31))


def test_a_time_just_outside_gives_the_nearest_frame(all_frames):
    images = list(decode_frames(BIKES, [-1.0, 10.02]))
    np.testing.assert_array_equal(images[0], all_frames[0][1])
    np.testing.assert_array_equal(images[1], all_frames[-1][1])


def test_no_times():
    assert list(decode_frames(BIKES, [])) == []


def test_descending_times_raise():
    with pytest.raises(ValueError, match="ascending"):
        list(decode_frames(BIKES, [1.0, 0.5]))


def test_a_time_after_the_end_raises():
    with pytest.raises(MediaError, match=r"bikes\.mp4: ends at 10\.00 s, before the frame requested at 12\.00 s"):
        list(decode_frames(BIKES, [0.0, 12.0]))


def test_decoding_text_raises(tmp_path):
    (tmp_path / "a.mp4").write_text("nothing")
    with pytest.raises(MediaError, match=r"a\.mp4: not a video"):
        next(decode_frames(tmp_path / "a.mp4", [0.0]))


# Rotation


def rotated(tmp_path, matrix):
    """The drawn video with another display matrix (a, b, c, d) in its track header: x' = ax + cy, y' = bx + dy."""
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as new:
        stream = new.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.zeros((48, 64, 3), np.uint8)
        pixels[:24, :32] = 255  # stored: the top left quarter is bright
        for _ in range(3):
            new.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        new.mux(stream.encode())
    data = bytearray(path.read_bytes())
    a, b, c, d = (int(value * 65536) for value in matrix)
    # ISO 14496-12: the matrix is 40 bytes after the version of a version-0 track header.
    at = data.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "matrix, size, bright",
    [
        ((1, 0, 0, 1), (64, 48), (0, 0)),
        ((0, 1, -1, 0), (48, 64), (0, 1)),  # a phone held upright: the stored top left is displayed top right
        ((-1, 0, 0, -1), (64, 48), (1, 1)),
        ((0, -1, 1, 0), (48, 64), (1, 0)),
    ],
)
def test_rotated_videos_are_turned_upright(tmp_path, matrix, size, bright):
    path = rotated(tmp_path, matrix)
    info = probe(path)
    assert (info.width, info.height) == size
    (image,) = decode_frames(path, [0.0])
    height, width, _ = image.shape
    assert (width, height) == size and image.flags.c_contiguous
    quarters = image.reshape(2, height // 2, 2, width // 2, 3).mean(axis=(1, 3, 4))
    assert quarters[bright] > 200 and quarters.sum() - quarters[bright] < 100


def test_times_with_rounding_errors_show_the_intended_frames(tmp_path):
    path = tmp_path / "six.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=6)
        stream.width, stream.height = 64, 48
        for number in range(24):
            grey = np.full((48, 64, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    start = 2 / 3
    times = [start + k / 6 for k in range(18)]
    assert start + 1.0 < 5 / 3  # one ulp below the time of frame 10
    shown = [round(float(frame.mean()) / 10) for frame in decode_frames(path, times)]
    assert shown == list(range(4, 22))
