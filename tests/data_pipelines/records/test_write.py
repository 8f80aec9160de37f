"""Writing records: whatever can be read is written so that it reads the same, to the last bit; and so are drafts."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.media.location import InMemory, Location
from data_pipelines.media.medium import ImageMedium, VideoMedium
from data_pipelines.records.annotations import (
    POINT_MARK,
    AnyOf,
    Choice,
    InlinePoints,
    Message,
    Points,
    Text,
    Tracks,
)
from data_pipelines.records.problems import RecordError
from data_pipelines.records.read import Record, read_record
from data_pipelines.records.write import Draft, NamedMedium, write_draft, write_record
from data_pipelines.text.points import Point
from data_pipelines.text.tracks import TrackFrame

ROOT, WHERE = "/media", "a.jsonl:1"
SIZE = (640, 272)
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
ODD_TEXT = st.sampled_from(["two\nlines", "\\ud83d", '"quoted"', "a\u2028b", "\U0001f6b2", "\0"])
WORDS = ANY_TEXT.filter(str.strip) | ODD_TEXT
FRACTION = st.floats(0, 1)
SECONDS = 4.0
TIME = st.floats(0, SECONDS)  # of a clip that is longer
POINTING = {"video": "video_point", "image": "pointing", "images": "multi_image_pointing"}


def tuples(elements, **sizes):
    return st.lists(elements, **sizes).map(tuple)


def answers(kind, key):
    """(style, strategy of its answers) of every kind of annotation that such media can have."""
    choices = st.lists(ANY_TEXT, min_size=1, max_size=4, unique=True).flatmap(
        lambda options: st.builds(
            Choice,
            st.just(tuple(options)),
            tuples(st.integers(0, len(options) - 1), min_size=1, max_size=3),
            st.booleans(),
        )
    )
    texts = st.builds(Text, tuples(WORDS, min_size=1, max_size=3), st.none() | WORDS)
    found = [("user_qa", texts), ("video_multiple_choice", choices)]
    if kind == "text":
        return found
    place = st.builds(Point, key, FRACTION, FRACTION)
    points = st.builds(Points, WORDS, tuples(place, max_size=3), st.none() | WORDS, st.none() | ANY_TEXT)
    inline = tuples(points, max_size=2).flatmap(
        lambda some: tuples(WORDS, min_size=len(some) + 1, max_size=len(some) + 1).map(
            lambda words: InlinePoints(POINT_MARK.join(words), some)
        )
    )
    found += [(POINTING[kind], points), ("user_qa", inline)]
    if kind == "video":
        places = st.dictionaries(ANY_TEXT, st.tuples(FRACTION, FRACTION), max_size=2)
        frames = st.dictionaries(TIME, places, max_size=3).map(
            lambda by_time: tuple(TrackFrame(time, by_time[time]) for time in sorted(by_time))
        )
        found.append(("video_point_track_per_frame", st.builds(Tracks, WORDS, frames, st.integers(1, 60))))
    return found


def trees(kind, key, depth=2):
    about = st.none() | WORDS
    if kind == "video":
        about |= TIME | st.tuples(TIME, TIME).map(sorted).map(tuple)
    asked = st.tuples(st.none() | WORDS, st.none()) | st.tuples(st.none(), WORDS)
    weight = st.just(1.0) | st.floats(1e-3, 100)
    then = st.just(()) if depth == 0 else st.just(()) | trees(kind, key, depth - 1)
    message = st.one_of(
        *(
            st.builds(
                lambda style, asked, about, answer, weight, then: Message(style, *asked, about, answer, weight, then),
                st.just(style),
                asked,
                about,
                answer,
                weight,
                then,
            )
            for style, answer in answers(kind, key)
        )
    )
    return tuples(message | st.builds(AnyOf, tuples(message, min_size=1, max_size=2)), min_size=1, max_size=2)


TREES = {
    "video": trees("video", TIME),
    "image": trees("image", st.just(1)),
    "images": trees("images", st.integers(1, 2)),
    "text": trees("text", None),
}


@st.composite
def subtitle_lines(draw, first):
    """Lines that show in the clip; they may begin before it, at `first` at the earliest."""
    starts = draw(st.lists(st.floats(first, SECONDS), max_size=3))
    return tuple(sorted((start, draw(st.floats(max(start, 0.0), 9000)), draw(ANY_TEXT)) for start in starts))


@st.composite
def drafts(draw):
    """(a draft, the seconds its video lasts)"""
    kind, name, known = draw(st.sampled_from(list(TREES))), draw(WORDS), st.none() | st.just("5e")
    messages = draw(TREES[kind])
    if kind != "video":
        count = {"text": 0, "image": 1, "images": draw(st.integers(2, 4))}[kind]
        images = tuple(NamedMedium(f"{n}.jpg", draw(known)) for n in range(count))
        return Draft(id=name, images=images, messages=messages), None
    start = draw(st.just(0.0) | st.floats(0, 5000))
    end = start + draw(st.floats(SECONDS + 0.01, 100))
    duration = end + draw(st.just(0.0) | st.floats(0, 1000))
    clip = draw(st.none() | st.just((start, end)))
    return Draft(
        id=name,
        video=NamedMedium("a.mp4", draw(known)),
        clip=clip,
        frame_rates=draw(st.none() | st.sets(st.floats(0.5, 30), min_size=1, max_size=3).map(sorted).map(tuple)),
        subtitles=draw(st.none() | ANY_TEXT | subtitle_lines(0.0 if clip is None else -start)),
        messages=messages,
    ), duration


def record_of(draft, duration):
    """The record of a draft whose media are stored and probed."""
    media = tuple(ImageMedium(Location(ROOT, image.name), SIZE) for image in draft.images)
    if draft.video is not None:
        start, end = draft.clip or (0.0, duration)
        location = Location(ROOT, draft.video.name)
        media = (VideoMedium(location, *SIZE, duration, start, end, draft.frame_rates),)
    return Record(draft.id, f"{WHERE}: record {draft.id!r}", media, draft.subtitles, draft.messages)


def stored(raw, duration):
    """A written draft with the facts of its media in place of their files, as in a prepared folder."""

    def facts(medium, **more):
        name = medium if isinstance(medium, str) else medium["file"]
        return {"at": name, "width": SIZE[0], "height": SIZE[1], **more}

    found = dict(raw)
    if "video" in raw:
        found["video"] = facts(raw["video"], duration=duration)
    if "image" in raw:
        found["image"] = facts(raw["image"])
    if "images" in raw:
        found["images"] = [facts(image) for image in raw["images"]]
    return found


def read(line):
    return read_record(line if isinstance(line, bytes) else json.dumps(line).encode(), ROOT, WHERE)


@settings(max_examples=80)
@given(drafts())
def test_a_written_record_is_read_as_it_was(made):
    record = record_of(*made)
    line = write_record(record)
    assert b"\n" not in line
    assert read(line) == record
    assert write_record(read(line)) == line


@settings(max_examples=50)
@given(drafts())
def test_a_written_draft_has_the_same_annotations_when_its_media_are_known(made):
    draft, duration = made
    raw = write_draft(draft)
    assert json.loads(json.dumps(raw)) == raw  # nothing but what JSON has
    assert read(stored(raw, duration)) == record_of(draft, duration)


@st.composite
def video_lines(draw):
    """JSON in seconds of the video and in any units of the frame, as people write it."""
    start, length = draw(st.floats(0, 1000)), draw(st.floats(0.1, 100))
    time = st.floats(start, start + length)
    scale = draw(st.sampled_from([[100, 100], [640, 272], [3, 0.7]]))
    x, y = st.floats(0, scale[0]), st.floats(0, scale[1])
    place = st.fixed_dictionaries({"time": time, "x": x, "y": y})
    points = {"label": "car", "points": draw(st.lists(place, max_size=4)), "scale": scale}
    frames = {draw(time): {"a": [draw(x), draw(y)]} for _ in range(draw(st.integers(0, 3)))}
    tracks = [{"time": time, "points": places} for time, places in frames.items()]
    lines = [[start, draw(st.floats(start, 2000)), "a"] for start in draw(st.lists(st.floats(0, 1200), max_size=3))]
    return {
        "id": "x",
        "video": {"at": "a.mp4", "width": 640, "height": 272, "duration": 2000},
        "clip": [start, start + length],
        "frame_rates": [2, 1],
        "subtitles": lines,
        "messages": [
            {"style": "video_point", "answer": points},
            {"style": "video_clip_caption_start_end", "about": sorted([draw(time), draw(time)]), "answer": "A street."},
            {
                "style": "video_point_track_per_frame",
                "answer": {"label": "car", "tracks": tracks, "fps": 2, "scale": scale},
            },
        ],
    }


@settings(max_examples=100)
@given(video_lines())
def test_seconds_of_the_video_and_pixels_are_kept_to_the_last_bit(raw):
    try:
        record = read(raw)
    except RecordError as error:  # two times of a track so close that the clip has one for both
        assert "has a time twice" in str(error)
        return
    assert read(write_record(record)) == record


def test_a_probed_record_is_read_again_without_its_file(folder):
    message = {"style": "user_qa", "user": "What?", "answer": "A street."}
    raw = {"id": "x", "video": "bikes.mp4", "clip": [3.04, 7.44], "messages": [message]}
    record = read_record(json.dumps(raw).encode(), str(folder), WHERE)
    (folder / "bikes.mp4").unlink()
    assert read_record(write_record(record), str(folder), WHERE) == record


def qa(answer, style="user_qa", **changes):
    parts = {"user": None, "question": None, "about": None, "weight": 1.0, "then": ()} | changes
    return Message(style, answer=answer, **parts)


WORD = Text(("A street.",), None)
VIDEO = VideoMedium(Location(ROOT, "a.mp4"), *SIZE, 10.0, 3.1, 7.4, (2.0,))
IMAGE = ImageMedium(Location(ROOT, "a.jpg"), SIZE)
PLACE = Points("car", (Point(2, 0.25, 0.5),), None, None)


def record(*media, answer=WORD, subtitles=None):
    return Record("x", f"{WHERE}: record 'x'", media, subtitles, (qa(answer),))


def test_a_line_has_what_differs_from_the_defaults_and_no_more():
    car = Points("car", (Point(0.1, 0.25, 0.5),), None, None)
    two = qa(Text(("two", "2"), "I count."), "video_short_answer", question="How many?", weight=0.5)
    messages = (AnyOf((qa(car, "video_point", then=(two,)),)), qa(WORD, about=(0.5, 1.0)))
    assert json.loads(write_record(Record("x", WHERE, (VIDEO,), ((0.2, 1.5, "Hi."),), messages))) == {
        "id": "x",
        "video": {"at": "a.mp4", "width": 640, "height": 272, "duration": 10.0},
        "clip": [3.1, 7.4],
        "times": "clip",
        "frame_rates": [2.0],
        "subtitles": [[0.2, 1.5, "Hi."]],
        "messages": [
            {
                "any": [
                    {
                        "style": "video_point",
                        "answer": {"label": "car", "points": [{"time": 0.1, "x": 0.25, "y": 0.5}], "scale": [1, 1]},
                        "then": [
                            {
                                "style": "video_short_answer",
                                "question": "How many?",
                                "answer": ["two", "2"],
                                "explanation": "I count.",
                                "weight": 0.5,
                            }
                        ],
                    }
                ]
            },
            {"style": "user_qa", "about": [0.5, 1.0], "answer": "A street."},
        ],
    }
    assert json.loads(write_record(record(IMAGE))) == {
        "id": "x",
        "image": {"at": "a.jpg", "width": 640, "height": 272},
        "messages": [{"style": "user_qa", "answer": "A street."}],
    }
    assert write_draft(Draft(id="x", images=(NamedMedium("a.jpg"),) * 2, messages=(qa(WORD),)))["images"] == [
        "a.jpg",
        "a.jpg",
    ]


def test_a_clip_from_the_start_needs_no_times_of_its_own():
    draft = Draft(id="x", video=NamedMedium("a.mp4", "5e"), clip=(0.0, 2.0), messages=(qa(WORD),))
    assert write_draft(draft) == {
        "id": "x",
        "video": {"file": "a.mp4", "sha256": "5e"},
        "clip": [0.0, 2.0],
        "messages": [{"style": "user_qa", "answer": "A street."}],
    }


def test_whatever_is_not_too_deep_to_read_is_not_too_deep_to_write():
    for depth in range(600, 100, -5):
        line = b'{"style": "user_qa", "answer": "a"}'
        for _ in range(depth):
            line = b'{"style": "user_qa", "answer": "a", "then": [' + line + b"]}"
        try:
            deep = read(b'{"id": "x", "messages": [' + line + b"]}")
        except RecordError:
            continue
        assert write_record(deep).count(b'"then"') == depth
        return
    raise AssertionError("nothing was read")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record(ImageMedium(InMemory("photo", b""), SIZE)), "photo: a medium in memory has no file"),
        (record(VIDEO, VIDEO), "a.jsonl:1: record 'x': its media are neither one video nor images"),
        (record(IMAGE, VIDEO), "its media are neither one video nor images"),
        (record(answer=PLACE), r"Point\(key=2, x=0.25, y=0.5\): no such medium, the example has none"),
        (record(IMAGE, answer=PLACE), "no such medium, the example has one image"),
        (record(VIDEO, subtitles=((0.0, float("nan"), "a"),)), "not JSON compliant"),
    ],
    ids=range(6),
)
def test_what_no_line_can_hold_is_not_written(bad, message):
    with pytest.raises(ValueError, match=message):
        write_record(bad)


def test_an_answer_of_another_type_is_named():
    with pytest.raises(TypeError, match=r"'A street\.' is not an annotation"):
        write_record(record(answer="A street."))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"video": NamedMedium("a.mp4"), "images": (NamedMedium("a.jpg"),)}, "draft 'x' has both a video and images"),
        ({"images": (NamedMedium("a.jpg"),), "clip": (0.0, 1.0)}, "draft 'x' has clip but no video"),
        ({"frame_rates": (1.0,)}, "draft 'x' has frame_rates but no video"),
        ({"subtitles": "Hi."}, "draft 'x' has subtitles but no video"),
    ],
)
def test_a_draft_that_contradicts_itself_is_not_made(keys, message):
    with pytest.raises(ValueError, match=message):
        Draft(id="x", messages=(qa(WORD),), **keys)


def timed(time, **changes):
    facts = {"at": "a.mp4", "width": 640, "height": 272, "duration": 10.0}
    answer = {"label": "car", "points": [{"time": time, "x": 1, "y": 1}]}
    messages = [{"style": "video_point", "answer": answer}]
    return {"id": "x", "video": facts, "clip": [3.0, 7.5], "messages": messages} | changes


def test_times_count_from_the_start_that_the_record_names():
    lines = [[-1.0, 0.5, "across"], [1.0, 2.0, "in"], [4.75, 5.0, "after"]]
    for changes, time in (({}, 1.5), ({"times": "video"}, 1.5), ({"times": "clip", "subtitles": lines}, 4.5)):
        got = read(timed(4.5, **changes))
        assert got.messages[0].answer.points[0].key == time
    assert got.subtitles == ((-1.0, 0.5, "across"), (1.0, 2.0, "in"))


IMAGE_RAW = {"id": "x", "image": {"at": "a.jpg", "width": 4, "height": 4}, "messages": [{"style": "user_qa"}]}
BAD_TIMES = [
    (
        timed(4.0, times="film"),
        "bad_record",
        "times must be 'video' or 'clip'.* not 'film'",
    ),
    (timed(4.0, times=["clip"]), "bad_record", r"times must be 'video' or 'clip'.* not \['clip'\]"),
    (IMAGE_RAW | {"times": "clip"}, "bad_record", "has 'times' but no 'video'"),
    (timed(4.6, times="clip"), "bad_time", r"time 4.6 s is outside the clip \[0.0, 4.5\]"),
    (timed(-0.1, times="clip"), "bad_time", r"time -0.1 s is outside the clip \[0.0, 4.5\]"),
    (timed(1.0, times="clip", subtitles=[[-3.1, 1, "a"]]), "bad_time", r"subtitles\[0\] is from -3.1 to 1.0 s"),
]


@pytest.mark.parametrize(("raw", "reason", "message"), BAD_TIMES, ids=[message for *_, message in BAD_TIMES])
def test_times_that_are_not_of_the_clip_are_named(raw, reason, message):
    with pytest.raises(RecordError, match=message) as caught:
        read(raw)
    assert caught.value.reason == reason
