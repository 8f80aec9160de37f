"""Videos: what a file contains (without decoding it), when its scenes start, and the frames at given times.

Times are in seconds since the first frame. A frame is displayed from its time until that of the next frame:

    frames at   0.0   0.04   0.08 .. 9.96       a 10 s clip at 25 frames/s; its duration is 10.0
    t = 0.05    the frame at 0.04
    t = 10.0    the frame at 9.96               the last one is displayed to the end of the clip
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import av
import numpy as np

from data_pipelines.errors import MediaError
from data_pipelines.media.file_source import Source, open_source, source_name

# The formats that are read, as ffmpeg names them. It has hundreds more, and some open other files and addresses that
# their text names (hls, concat, sdp), or show pictures and text as videos (png_pipe, image2, tty).
FORMATS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "mjpeg", "gif", "flv", "ogg", "asf")
_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "none"}  # nothing besides the open file

# The headers of Matroska and AVI state the duration of the video, but not of its last frame, nor whether frames were
# dropped at the end. A file counts as cut off if it is shorter by more than these seconds.
_DURATION_SLACK = 0.5

ROUNDING = 1e-6  # s; a computed time such as 2/3 + 1 can be below the time of its frame by a rounding error
SCENE_THRESHOLD = 0.3  # difference between successive frames, from 0 to 1, that starts a scene; from ffmpeg's manual


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """The result of `probe`. `width` and `height` are those of the displayed frame, after the rotation in the file."""

    width: int
    height: int
    duration: float  # seconds from the start of the first frame to the end of the last
    frames: int


def probe(source: Source) -> VideoInfo:
    """Size, duration and number of frames of a video, read from its packets; only the first frame is decoded.

        probe("experiments/street/bikes.mp4")  ->  VideoInfo(width=640, height=272, duration=10.0, frames=250)

    Raises MediaError, naming the file, if it is missing, empty, not a video, cannot be decoded, or is cut off: the
    container's index lists more frames than the file has, its header states more seconds, or a packet is incomplete.
    Other containers (MPEG-TS, GIF) announce no length; if they are cut between packets, the video is only shorter.
    """
    with _open(source) as (container, stream, name):
        # Read first, because demuxing adds packets to the index.
        indexed, announced = _announced_length(container, stream)
        spans, packets, end_of_file, rotation = [], 0, 0.0, None
        for packet in container.demux():
            ours = packet.stream.index == stream.index
            if ours and rotation is None:
                rotation = next((frame.rotation for frame in packet.decode()), None)
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None:  # an empty packet, which ends a stream
                continue
            _check_complete(packet, name)
            end_of_file = max(end_of_file, float((time + (packet.duration or 0)) * packet.time_base))
            packets += ours
            # Discarded packets come before the start of a trimmed clip; they are decoded but not displayed.
            if ours and not packet.is_discard:
                spans.append((time, time + (packet.duration or _frame_length(stream))))
        cut_off = packets < indexed or end_of_file + _DURATION_SLACK < announced
        return _check_info(name, stream, spans, rotation, cut_off)


def decode_frames(source: Source, times: Sequence[float] | np.ndarray) -> Iterator[np.ndarray]:
    """The frame (uint8[H, W, 3] RGB, upright) displayed at each of `times`, which must not decrease.

        list(decode_frames("bikes.mp4", [0.0, 0.05, 10.0]))  ->  frames 0, 1 and 249

    Seeks to the keyframe before times[0], then decodes every frame once; for a few frames per second this is faster
    than seeking to each. A time before the first frame gives the first, a time up to one frame after the last gives the
    last. Consecutive times of one frame give the same array twice.

    Raises:
      MediaError: the file cannot be opened or decoded, or ends before one of the times.
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not (np.diff(times) >= 0).all():
        raise ValueError(f"times must be one-dimensional and ascending, got {times}")
    if not times.size:
        return
    with _open(source) as (container, stream, name):
        start = _first_pts(container, stream, name)
        frames = _seek(container, stream, start, times[0], name)
        current, following = next(frames), next(frames, None)
        image = None
        for time in times:
            while following is not None and _seconds(following, start) <= time + ROUNDING:
                current, following, image = following, next(frames, None), None
            if following is None:
                _check_reached(current, stream, start, time, name)
            if image is None:
                image = _upright(current.to_ndarray(format="rgb24"), current.rotation)
            yield image


def scene_starts(source: Source, start: float, end: float) -> np.ndarray:
    """The times at which scenes start from `start` to `end`, in seconds since the first frame; `start` is one of them.

    A frame starts a scene if its difference from the frame before, as scored by ffmpeg's "select" filter, is above
    SCENE_THRESHOLD. Every frame is decoded. Raises MediaError as `decode_frames` does.
    """
    found = [start]
    with _open(source) as (container, stream, name):
        first = _first_pts(container, stream, name)
        graph = av.filter.Graph()
        condition = f"gt(scene,{SCENE_THRESHOLD})"
        filters = [graph.add_buffer(template=stream), graph.add("select", condition), graph.add("buffersink")]
        for one, following in itertools.pairwise(filters):
            one.link_to(following)
        graph.configure()
        for frame in _seek(container, stream, first, start, name):
            time = _seconds(frame, first)
            if time >= end:
                break
            graph.push(frame)
            with contextlib.suppress(BlockingIOError):  # the filter dropped the frame
                graph.pull()
                found += [time] if time > start else []
    return np.array(found)


@contextlib.contextmanager
def _open(source: Source) -> Iterator[tuple[av.container.InputContainer, av.VideoStream, str]]:
    """The open container, its video stream and the name for errors. An ffmpeg error becomes a MediaError."""
    name = source_name(source)
    with open_source(source) as file:
        reason = "cut_off" if _starts_as_video(file) else "not_media"
        try:
            # Ignore metadata errors: titles with invalid encodings are common.
            with av.open(file, options=_OPTIONS, metadata_errors="ignore") as container:
                cover = av.stream.Disposition.attached_pic  # an album cover is stored as a video stream of one picture
                streams = [s for s in container.streams.video if not s.disposition & cover]
                if not streams:
                    kinds = {"a cover" if s.type == "video" else s.type for s in container.streams} or {"nothing"}
                    raise MediaError(f"{name}: no video in it (it contains {', '.join(sorted(kinds))})", "no_video")
                streams[0].thread_count = 1  # one video per core is decoded at a time: more threads would only wait
                reason = "undecodable"
                yield container, streams[0], name
        except av.FFmpegError as error:
            formats = f"; formats are {', '.join(FORMATS)}" if reason == "not_media" else ""
            message = f"{name}: not a video, or one that is damaged or cut off ({error.strerror}){formats}"
            raise MediaError(message, reason) from error


def _starts_as_video(file: BinaryIO) -> bool:
    """Whether the first bytes are those of MP4, Matroska or AVI. If such a file fails to open, it is cut off."""
    start = file.read(12)
    file.seek(0)
    return start[4:8] == b"ftyp" or start[:4] == b"\x1a\x45\xdf\xa3" or (start[:4], start[8:]) == (b"RIFF", b"AVI ")


def _announced_length(container: av.container.InputContainer, stream: av.VideoStream) -> tuple[int, float]:
    """The number of packets and the end (s) that a container states before it is read; 0 for what it does not state."""
    kind = container.format.name
    if "mp4" in kind:  # the index accounts for trimming, the frame count in the header does not
        return len(stream.index_entries), 0.0
    if kind == "avi":  # the header counts frames at a constant rate, including dropped ones
        return 0, float(stream.frames * stream.time_base)
    if "matroska" in kind and container.duration is not None:
        return 0, container.duration / av.time_base
    return 0, 0.0


def _check_info(
    name: str, stream: av.VideoStream, spans: list[tuple[int, int]], rotation: int | None, cut_off: bool
) -> VideoInfo:
    """The VideoInfo, or MediaError if the video is unusable. `spans`: (start, end) of its frames in its time base."""
    if not spans:
        raise MediaError(f"{name}: no frames in it", "no_frames")
    duration = float((max(end for _, end in spans) - min(start for start, _ in spans)) * stream.time_base)
    if cut_off:
        length = f"{len(spans)} frames ({duration:.2f} s)"
        raise MediaError(f"{name}: cut off: it ends after {length}, its container lists more", "cut_off")
    if duration <= 0:
        raise MediaError(f"{name}: its duration is zero ({len(spans)} frames)", "no_frames")
    if rotation is None:
        raise MediaError(
            f"{name}: none of its {len(spans)} frames can be decoded ({stream.codec_context.name})", "undecodable"
        )
    width, height = stream.codec_context.width, stream.codec_context.height
    if rotation % 180:
        width, height = height, width
    return VideoInfo(width, height, duration, len(spans))


def _check_complete(packet: av.Packet, name: str) -> None:
    # ffmpeg returns the rest of a packet that is cut, and marks it as corrupt.
    if packet.is_corrupt:
        time = packet.dts if packet.dts is not None else packet.pts
        at = "" if time is None else f" at {float(time * packet.time_base):.2f} s"
        raise MediaError(f"{name}: cut off or damaged{at}: a packet is incomplete", "cut_off")


def _frame_length(stream: av.VideoStream) -> int:
    """Duration of a frame that states none: from the average rate, in units of the time base; 0 if unknown."""
    rate = stream.average_rate
    return round(1 / (rate * stream.time_base)) if rate else 0


def _decoded_frames(container: av.container.InputContainer, stream: av.VideoStream, name: str) -> Iterator:
    """Decoded frames from the current position of the container on, in display order."""
    for packet in container.demux(stream):
        _check_complete(packet, name)
        for frame in packet.decode():
            if frame.pts is None:
                raise MediaError(f"{name}: a frame has no time", "undecodable")
            yield frame


def _first_pts(container: av.container.InputContainer, stream: av.VideoStream, name: str) -> int:
    """Time of the first frame, in units of the time base. Some headers state a wrong one, so a frame is decoded."""
    first = next(_decoded_frames(container, stream, name), None)
    if first is None:
        raise MediaError(f"{name}: no frame can be decoded", "undecodable")
    return first.pts


def _seek(
    container: av.container.InputContainer, stream: av.VideoStream, start: int, time: float, name: str
) -> Iterator:
    """Frames from a keyframe at or before `time` on, or from the first frame if there is no such keyframe."""
    back = 0.0
    while True:
        target = max(start, start + int((time - back) / stream.time_base))
        container.seek(target, stream=stream)
        frames = _decoded_frames(container, stream, name)
        first = next(frames, None)
        # Containers index by decoding order: if frames are reordered, the keyframe found can be displayed after `time`.
        if first is not None and (first.pts <= target or target == start):
            return itertools.chain([first], frames)
        if target == start:
            raise MediaError(f"{name}: no frame can be decoded", "undecodable")
        back = 2 * back + 1.0


def _seconds(frame: av.VideoFrame, start: int) -> float:
    return float((frame.pts - start) * frame.time_base)


def _check_reached(last: av.VideoFrame, stream: av.VideoStream, start: int, time: float, name: str) -> None:
    """Raise MediaError if `time` is more than one frame after the end of the last frame."""
    length = float((last.duration or _frame_length(stream)) * stream.time_base)
    end = _seconds(last, start) + length
    if time > end + length:
        raise MediaError(f"{name}: ends at {end:.2f} s, before the frame requested at {time:.2f} s", "cut_off")


def _upright(image: np.ndarray, rotation: int) -> np.ndarray:
    """Rotate an image counter-clockwise by the degrees stated in the container; cameras write quarter turns."""
    return np.ascontiguousarray(np.rot90(image, round(rotation / 90))) if rotation else image
