"""Videos for tests: a real clip, copies of it in other containers, and drawn ones whose frames encode their number."""

from fractions import Fraction

import av
import numpy as np

from data_pipelines.media.video import VideoInfo, decode_frames

BIKES = "experiments/street/bikes.mp4"
WHOLE = VideoInfo(width=640, height=272, duration=10.0, frames=250)


def copy(out, options=None, source=BIKES, packets=None, earlier=0.0):
    """Copy the (first) packets of a video to another container, with times `earlier` by seconds."""
    with av.open(str(source)) as old, av.open(str(out), "w", options=options or {}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in list(old.demux(old.streams.video[0]))[:packets]:
            if packet.dts is not None:
                packet.dts -= round(earlier / packet.time_base)
                packet.pts -= round(earlier / packet.time_base)
                packet.stream = stream
                new.mux(packet)
    return out


def draw(out, ticks, *, rate=25, options=None, audio=0.0):
    """A video whose frame k has gray value 8 k and starts at ticks[k] (ms); plus `audio` seconds of silence."""
    with av.open(str(out), "w") as new:
        stream = new.add_stream("mpeg4", rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.qmax = 2  # the grays must survive
        sound = new.add_stream("pcm_s16le", rate=8000, layout="mono") if audio else None
        for k, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = tick, stream.codec_context.time_base
            new.mux(stream.encode(frame))
        new.mux(stream.encode())
        if sound:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, int(8000 * audio)), np.int16), "s16", "mono")
            silence.rate, silence.pts = 8000, 0
            new.mux(sound.encode(silence))
            new.mux(sound.encode())
    return out


def grays(path, times):
    """The numbers of the frames of a drawn video at `times`."""
    return [round(float(image.mean()) / 8) for image in decode_frames(path, times)]
