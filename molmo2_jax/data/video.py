"""Videos: what a file holds (without decoding it), when its scenes begin, and the frames of given times.

Times are seconds since the first frame. A frame is displayed from its own time until the next frame's:

    frames at   0.0   0.04   0.08 .. 9.96       a 10 s clip at 25 frames/s; its duration is 10.0
    t = 0.05    the frame at 0.04
    t = 10.0    the frame at 9.96               the last one is displayed to the end of the clip
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import av
import numpy as np

from molmo2_jax.data.failure import MediaError
from molmo2_jax.data.source import Source, name_of, rewound

# ffmpeg also opens pictures (png_pipe, image2) and any .txt (tty) as if they were videos.
_NOT_VIDEO = ("image2", "tty")

# Headers of Matroska and AVI state how long the video is, but not how long its last frame, or whether frames were
# dropped at the end; only what is shorter by more than these seconds is cut off.
_DURATION_SLACK = 0.5

ROUNDING = 1e-6  # s; a time that is a sum, such as 2/3 + 1, can fall short of the frame it means by a rounding error
CUT = 0.3  # difference of a frame from the one before, from 0 to 1, that begins a scene; ffmpeg's own advice


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a probe finds. `width` and `height` are as displayed, that is, after the rotation phones write."""

    width: int
    height: int
    duration: float  # seconds from the start of the first frame to the end of the last
    frames: int


def probe(source: Source) -> VideoInfo:
    """Size, duration and number of frames of a video, from its packets; only the first frame is decoded.

        probe("experiments/street/bikes.mp4")  ->  VideoInfo(width=640, height=272, duration=10.0, frames=250)

    Raises MediaError, naming the file, where it is missing, not a video, empty, cannot be decoded, or cut off: the
    container's index lists more frames than there are, its header states more seconds, or a packet is incomplete.
    Other containers (MPEG-TS, GIF) promise nothing, so a cut between packets shows only as a shorter video.
    """
    with _open(source) as (container, stream, name):
        # Taken before reading, which adds to the index what it finds on the way.
        indexed, announced = _promises(container, stream)
        spans, packets, end_of_file, rotation = [], 0, 0.0, None
        for packet in container.demux():
            ours = packet.stream.index == stream.index
            if ours and rotation is None:
                rotation = next((frame.rotation for frame in packet.decode()), None)
            time = packet.pts if packet.pts is not None else packet.dts
            if time is None:  # the empty packets that end a stream
                continue
            _check_whole(packet, name)
            end_of_file = max(end_of_file, float((time + (packet.duration or 0)) * packet.time_base))
            packets += ours
            # Discarded packets lead up to the start of a trimmed clip; they are decoded but never displayed.
            if ours and not packet.is_discard:
                spans.append((time, time + (packet.duration or _frame_length(stream))))
        cut_off = packets < indexed or end_of_file + _DURATION_SLACK < announced
        return _info(name, stream, spans, rotation, cut_off)


def decode_frames(source: Source, times: Sequence[float] | np.ndarray) -> Iterator[np.ndarray]:
    """The frames (uint8[H, W, 3] RGB, upright) displayed at each of `times`, in order; `times` must not decrease.

        list(decode_frames("bikes.mp4", [0.0, 0.05, 10.0]))  ->  frames 0, 1 and 249

    One pass: a seek to the keyframe before times[0], then every frame is decoded once, since for a few frames a second
    that costs less than seeking to each. Times before the first frame or within one frame after the last give that
    frame, and consecutive times in one frame give the same array twice. Raises MediaError where the file cannot be
    opened or decoded, or ends before a time.
    """
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not (np.diff(times) >= 0).all():
        raise ValueError(f"times must be a list in ascending order, got {times}")
    if not times.size:
        return
    with _open(source) as (container, stream, name):
        start = _start(container, stream, name)
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
    """When scenes begin between `start` and `end`, float64[n] in seconds since the first frame, `start` first.

    A frame begins a scene if ffmpeg's score of its difference from the frame before is above CUT (filter "select").
    Every frame is decoded. Raises MediaError as `decode_frames` does.
    """
    found = [start]
    with _open(source) as (container, stream, name):
        first = _start(container, stream, name)
        graph = av.filter.Graph()
        steps = [graph.add_buffer(template=stream), graph.add("select", f"gt(scene,{CUT})"), graph.add("buffersink")]
        for one, other in itertools.pairwise(steps):
            one.link_to(other)
        graph.configure()
        for frame in _seek(container, stream, first, start, name):
            time = _seconds(frame, first)
            if time >= end:
                break
            graph.push(frame)
            with contextlib.suppress(BlockingIOError):  # the filter let nothing through
                graph.pull()
                found += [time] if time > start else []
    return np.array(found)


@contextlib.contextmanager
def _open(source: Source) -> Iterator[tuple[av.container.InputContainer, av.VideoStream, str]]:
    """The open container, its video stream and the name for errors; what ffmpeg finds in the block is a MediaError."""
    name, source = name_of(source), rewound(source)
    reason = "cut_off" if _begins_as_video(source) else "not_media"
    try:
        # Titles in odd encodings are common and no reason to refuse a video.
        with av.open(source, metadata_errors="ignore") as container:
            kind = container.format.name
            if kind.endswith("_pipe") or kind in _NOT_VIDEO:
                raise MediaError(f"{name}: not a video but a file of type {kind}", "not_media")
            cover = av.stream.Disposition.attached_pic  # an album cover is stored as a video of one picture
            streams = [s for s in container.streams.video if not s.disposition & cover]
            if not streams:
                kinds = sorted({"a cover" if s.type == "video" else s.type for s in container.streams}) or ["nothing"]
                raise MediaError(f"{name}: no video in it (it holds {', '.join(kinds)})", "no_video")
            streams[0].thread_count = 1  # as many videos as cores are decoded at once: threads of each would only wait
            reason = "undecodable"
            yield container, streams[0], name
    except av.FFmpegError as error:
        message = f"{name}: not a video, or one that is damaged or cut off ({error.strerror})"
        raise MediaError(message, reason) from error


def _begins_as_video(source: Source) -> bool:
    """Whether the first bytes are those of MP4, Matroska or AVI, so that what fails to open must be cut off."""
    if isinstance(source, str):
        with open(source, "rb") as file:
            start = file.read(8)
    else:
        start = source.read(8)
        source.seek(0)
    return start[4:] == b"ftyp" or start[:4] in (b"\x1a\x45\xdf\xa3", b"RIFF")


def _promises(container: av.container.InputContainer, stream: av.VideoStream) -> tuple[int, float]:
    """What a container says before it is read: packets in its index, end of its last stream (s); 0 if it is mute."""
    kind = container.format.name
    if "mp4" in kind:  # the index is what is left after trimming, the frame count of the header is not
        return len(stream.index_entries), 0.0
    if kind == "avi":  # counts frames, dropped ones included, at a constant rate
        return 0, float(stream.frames * stream.time_base)
    if "matroska" in kind and container.duration is not None:
        return 0, container.duration / av.time_base
    return 0, 0.0


def _info(
    name: str, stream: av.VideoStream, spans: list[tuple[int, int]], rotation: int | None, cut_off: bool
) -> VideoInfo:
    """Judge what the packets of a video say: `spans` are (start, end) of its frames in units of its time base."""
    if not spans:
        raise MediaError(f"{name}: no frames in it", "no_frames")
    duration = float((max(end for _, end in spans) - min(start for start, _ in spans)) * stream.time_base)
    if cut_off:
        raise MediaError(
            f"{name}: cut off: it ends after {len(spans)} frames ({duration:.2f} s), more were announced", "cut_off"
        )
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


def _check_whole(packet: av.Packet, name: str) -> None:
    # ffmpeg hands out what is left of the packet that a cut goes through, and marks it.
    if packet.is_corrupt:
        time = packet.dts if packet.dts is not None else packet.pts
        at = "" if time is None else f" at {float(time * packet.time_base):.2f} s"
        raise MediaError(f"{name}: cut off or damaged{at}: a packet is incomplete", "cut_off")


def _frame_length(stream: av.VideoStream) -> int:
    """Length of a frame that states none, from the average rate, in units of the time base; 0 if that is unknown."""
    rate = stream.average_rate
    return round(1 / (rate * stream.time_base)) if rate else 0


def _frames(container: av.container.InputContainer, stream: av.VideoStream, name: str) -> Iterator:
    """Decoded frames from where the container stands, in display order."""
    for packet in container.demux(stream):
        _check_whole(packet, name)
        for frame in packet.decode():
            if frame.pts is None:
                raise MediaError(f"{name}: a frame has no time", "undecodable")
            yield frame


def _start(container: av.container.InputContainer, stream: av.VideoStream, name: str) -> int:
    """Time of the first frame, in units of the time base. Headers state it too, but not all of them rightly."""
    first = next(_frames(container, stream, name), None)
    if first is None:
        raise MediaError(f"{name}: no frame can be decoded", "undecodable")
    return first.pts


def _seek(
    container: av.container.InputContainer, stream: av.VideoStream, start: int, time: float, name: str
) -> Iterator:
    """Frames from a keyframe at or before `time` on; from the first frame where that is before all keyframes."""
    back = 0.0
    while True:
        target = max(start, start + int((time - back) / stream.time_base))
        container.seek(target, stream=stream)
        frames = _frames(container, stream, name)
        first = next(frames, None)
        # Containers index by decoding order: with reordered frames the keyframe found can be displayed after `time`.
        if first is not None and (first.pts <= target or target == start):
            return _chain(first, frames)
        if target == start:
            raise MediaError(f"{name}: no frame can be decoded", "undecodable")
        back = 2 * back + 1.0


def _chain(first: av.VideoFrame, rest: Iterator) -> Iterator:
    yield first
    yield from rest


def _seconds(frame: av.VideoFrame, start: int) -> float:
    return float((frame.pts - start) * frame.time_base)


def _check_reached(last: av.VideoFrame, stream: av.VideoStream, start: int, time: float, name: str) -> None:
    """Raise unless `time` is in the last frame or at most a frame after it."""
    length = float((last.duration or _frame_length(stream)) * stream.time_base)
    end = _seconds(last, start) + length
    if time > end + length:
        raise MediaError(f"{name}: ends at {end:.2f} s, before the frame asked for at {time:.2f} s", "cut_off")


def _upright(image: np.ndarray, rotation: int) -> np.ndarray:
    """Turn an image by the counter-clockwise degrees its container asks for; cameras write quarter turns."""
    return np.ascontiguousarray(np.rot90(image, round(rotation / 90))) if rotation else image
