"""Unusual media, described and decoded: those that work, and those that raise, with the reason."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import ExampleError
from data_pipelines.loading.dataset import open_dataset
from data_pipelines.sequence.example import describe

QUESTION = {"style": "user_qa", "user": "What?", "answer": "That."}


def noise(*size):
    return np.random.default_rng(0).integers(0, 255, size, np.uint8)


def picture(mode, size, **options):
    def write(path):
        Image.fromarray(noise(size[1], size[0], 3)).convert(mode).save(path, **options)

    return write


def animated(path):
    frames = [Image.fromarray(np.full((40, 60, 3), level, np.uint8)) for level in (10, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def deep(path):
    Image.fromarray(noise(40, 60).astype(np.uint16) * 257).save(path)


def cut(write, part):
    def write_part(path):
        write(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])

    return write_part


def film(times, size=(64, 48)):
    """Gray frames of increasing brightness at `times` in milliseconds."""

    def write(path):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("h264", rate=1000)
            stream.width, stream.height = size
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            for number, time in enumerate(times):
                frame = av.VideoFrame.from_ndarray(
                    np.full((size[1], size[0], 3), 40 * number, np.uint8), format="rgb24"
                )
                frame.pts, frame.time_base = time, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    return write


def sound(path):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16_000))


UNEVEN = film([0, 100, 1000, 1100, 2000])

MEDIA = [  # kind, name, function that writes it, number of crops or reason of the error
    ("image", "wide.png", picture("RGB", (10_000, 3)), 2),
    ("image", "wide.jpg", picture("RGB", (10_000, 300)), 9),
    ("image", "one.png", picture("RGB", (1, 1)), 2),
    ("image", "print.jpg", picture("CMYK", (60, 40)), 2),
    ("image", "palette.png", picture("P", (60, 40)), 2),
    ("image", "moving.gif", animated, 2),
    ("image", "deep.png", deep, "bit_depth"),
    ("image", "cut.jpg", cut(picture("RGB", (300, 200)), 0.5), "cut_off"),
    ("image", "cut.png", cut(picture("RGB", (300, 200)), 0.5), "cut_off"),
    ("image", "empty.jpg", lambda path: path.write_bytes(b""), "empty_file"),
    ("image", "words.jpg", lambda path: path.write_text("not a picture"), "not_media"),
    ("image", "gone.jpg", lambda path: None, "no_file"),
    ("video", "uneven.mp4", UNEVEN, 7),  # at 2 frames/s; the container states 3 s
    ("video", "empty.mp4", lambda path: path.write_bytes(b""), "empty_file"),
    ("video", "sound.wav", sound, "not_media"),
    ("video", "words.mp4", lambda path: path.write_text("not a video"), "not_media"),
    ("video", "gone.mp4", lambda path: None, "no_file"),
]


def describe_first(path, tok, cfg):
    """The described example of a file's first record."""
    record, rng = open_dataset(str(path)).record(0), np.random.default_rng(0)
    return describe(
        record,
        rng,
        tok,
        cfg.view,
        cfg.prompts,
        cfg.token_weights,
        dataset="d",
        high_res=0.0,
        dataset_weight=None,
    )


@pytest.mark.parametrize(("kind", "name", "write", "expected"), MEDIA, ids=[name for _, name, _, _ in MEDIA])
def test_a_medium_works_or_raises(tmp_path, write_records, tokenizer, data_config, kind, name, write, expected):
    path = write_records({"id": "x", kind: name, "messages": [QUESTION]})
    write(path.parent / name)
    try:
        example = describe_first(path, tokenizer, data_config())
        result = len([crop for plan in example.media for crop in plan.crops()])
    except ExampleError as error:
        assert name in str(error)
        result = error.reason
    assert result == expected


def test_frames_of_an_uneven_video_are_those_displayed_at_their_times(tmp_path, write_records, tokenizer, data_config):
    path = write_records({"id": "x", "video": "uneven.mp4", "messages": [QUESTION]})
    UNEVEN(path.parent / "uneven.mp4")
    (plan,) = describe_first(path, tokenizer, data_config(max_frames=128)).media
    shown = [round(float(crop.mean()) / 40) for crop in plan.crops()]
    assert shown == [max(i for i, t in enumerate((0, 0.1, 1.0, 1.1, 2.0)) if t <= time) for time in plan.times]
