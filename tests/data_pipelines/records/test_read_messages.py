"""Messages: every annotation in its own units, and every problem of one with its reason."""

import math

import pytest

from data_pipelines.records.annotations import AnyOf, Choice, InlinePoints, Message, Points, Text, Tracks
from data_pipelines.records.problems import Problems, RecordError
from data_pipelines.records.read_messages import Scene, read_messages
from data_pipelines.text.points import Point
from data_pipelines.text.tracks import TrackFrame

VIDEO = Scene("video", ((640, 272),), 3.0, 7.0)
IMAGE = Scene("image", ((40, 30),), 0.0, 0.0)
IMAGES = Scene("images", ((40, 30), (10, 10)), 0.0, 0.0)
TEXT = Scene("text", (), 0.0, 0.0)


def read(scene, *raw):
    problems = Problems("a.jsonl:1")
    found = read_messages(list(raw), "messages", scene, problems)
    problems.raise_any()
    return found


def qa(**changes):
    return {"style": "user_qa", "user": "What is this?", "answer": "A street.", **changes}


def points(*found, style="video_point", **changes):
    return qa(style=style, answer={"label": "car", "points": list(found), **changes})


def at(time, x, y):
    return {"time": time, "x": x, "y": y}


def tracks(*frames, fps=2, **changes):
    frames = [{"time": time, "points": found} for time, found in frames]
    return qa(style="video_point_track_per_frame", answer={"label": "car", "tracks": frames, "fps": fps, **changes})


def choice(*options, correct=0, **changes):
    return {
        "style": "video_multiple_choice",
        "question": "Which?",
        "options": list(options),
        "correct": correct,
    } | changes


GOOD = [
    (TEXT, qa(), Text(("A street.",), None)),
    (TEXT, qa(answer=["two", "two", "three"], explanation="I count."), Text(("two", "two", "three"), "I count.")),
    (TEXT, choice("a", "b", correct=1), Choice(("a", "b"), (1,), True)),
    (TEXT, choice("a", "", correct=[0, 1], labelled=False), Choice(("a", ""), (0, 1), False)),
    # Seconds of the video become seconds of the clip, pixels or other units fractions of the frame.
    (VIDEO, points(at(5.5, 160, 68), alt="it"), Points("car", (Point(2.5, 0.25, 0.25),), "it", None)),
    (VIDEO, points(at(7, 50, 100), scale=[100, 200]), Points("car", (Point(4.0, 0.5, 0.5),), None, None)),
    (VIDEO, points(at(3, 640, 272), at(3.0, 0, 0)), Points("car", (Point(0.0, 1, 1), Point(0.0, 0, 0)), None, None)),
    (VIDEO, points(), Points("car", (), None, None)),
    (VIDEO, points(unanswerable=""), Points("car", (), None, "")),
    (IMAGE, points({"x": 10, "y": 30}, style="pointing"), Points("car", (Point(1, 0.25, 1.0),), None, None)),
    (
        IMAGES,
        points({"image": 2, "x": 5, "y": 1}, {"image": 1, "x": 4, "y": 3}, style="multi_image_pointing"),
        Points("car", (Point(2, 0.5, 0.1), Point(1, 0.1, 0.1)), None, None),
    ),
    (
        VIDEO,
        tracks((5.5, {"b": [64, 0]}), (4.0, {"7": [320, 136], "b": [0, 0]}), (6.5, {})),
        Tracks(
            "car",
            (TrackFrame(1.0, {"7": (0.5, 0.5), "b": (0, 0)}), TrackFrame(2.5, {"b": (0.1, 0)}), TrackFrame(3.5, {})),
            2,
        ),
    ),
    (
        IMAGE,
        qa(answer="the <|POINT|> car", points=[{"label": "red", "points": [{"x": 4, "y": 3}]}]),
        InlinePoints("the <|POINT|> car", (Points("red", (Point(1, 0.1, 0.1),), None, None),)),
    ),
]


@pytest.mark.parametrize(("scene", "raw", "answer"), GOOD, ids=[str(answer)[:60] for _, _, answer in GOOD])
def test_an_annotation_is_read(scene, raw, answer):
    (got,) = read(scene, raw)
    assert got.answer == answer


@pytest.mark.parametrize(
    ("about", "own"), [("a red kite", "a red kite"), (3, 0.0), (5.5, 2.5), ([3.5, 7], (0.5, 4.0)), ([4, 4], (1.0, 1.0))]
)
def test_what_is_asked_about_is_in_the_clip_s_own_time(about, own):
    (got,) = read(VIDEO, {"style": "video_clip_caption_start_end", "about": about, "answer": "A street."})
    assert got.about == own


def test_a_tree_of_messages_is_read():
    last = qa(user="C?", weight=0.5)
    a, either = read(TEXT, qa(then=[qa(user="B?", then=[last])]), {"any": [qa(user="D?"), qa(user="E?")]})
    text = Text(("A street.",), None)
    c = Message("user_qa", "C?", None, None, text, 0.5, ())
    assert a.then == (Message("user_qa", "B?", None, None, text, 1.0, (c,)),)
    assert isinstance(either, AnyOf)
    assert [one.user for one in either.choices] == ["D?", "E?"]


NAN = math.nan
BAD = [
    (TEXT, qa(user="  "), "bad_record", r"messages\[0\]: 'user' is empty or not a string"),
    (TEXT, qa(answer=""), "bad_record", r"messages\[0\]: 'answer' is empty or not a string"),
    (TEXT, qa(answer=2), "bad_record", r"messages\[0\]: 'answer' is empty or not a string"),
    (TEXT, qa(answer=[]), "bad_record", r"messages\[0\]: 'answer' is empty"),
    (TEXT, qa(answer=["a", " "]), "bad_record", r"messages\[0\]: 'answer' is empty"),
    (TEXT, qa(explanation=""), "bad_record", "'explanation' is empty"),
    (TEXT, qa(style="poem"), "bad_record", r"messages\[0\].style 'poem' is unknown \(known: a_okvqa_da"),
    (TEXT, qa(style=[]), "bad_record", "'style' is empty or not a string"),
    (VIDEO, points(style=["video_point"]), "bad_record", "'style' is empty or not a string"),
    (TEXT, qa(question="Where?"), "bad_record", r"messages\[0\] has both 'user' and 'question'"),
    (TEXT, qa(weight=0), "bad_record", r"messages\[0\].weight must be a number above 0, not 0"),
    (TEXT, qa(weight=NAN), "bad_record", r"messages\[0\].weight must be a number above 0, not nan"),
    (TEXT, qa(then=[]), "bad_record", r"messages\[0\].then is empty or not a list"),
    (TEXT, qa(then=[qa(then=[qa(user="")])]), "bad_record", r"messages\[0\].then\[0\].then\[0\]: 'user' is empty"),
    (TEXT, qa(than=[]), "bad_record", r"messages\[0\] has an unknown key 'than'"),
    (TEXT, 7, "bad_record", r"messages\[0\] is not an object"),
    (TEXT, {"any": []}, "bad_record", r"messages\[0\].any is empty or not a list"),
    (TEXT, {"any": [qa()], "weight": 2}, "bad_record", r"messages\[0\] has an unknown key 'weight'"),
    (TEXT, {"any": [{"any": [qa()]}]}, "bad_record", r"messages\[0\].any contains another 'any'"),
    (TEXT, choice("a", "b", correct=2), "bad_options", r"messages\[0\].correct 2 names no option of 2"),
    (TEXT, choice("a", "b", correct=[]), "bad_options", r"correct \[\] names no option"),
    (TEXT, choice("a", "b", correct=-1), "bad_options", "correct -1 names no option"),
    (TEXT, choice("a", "b", correct=True), "bad_options", "correct True names no option"),
    (TEXT, choice("a", "b", "a"), "bad_options", r"messages\[0\].options has 'a' twice"),
    (TEXT, choice("a", 2), "bad_record", r"messages\[0\].options is not a list of texts"),
    (TEXT, choice("a", "b", labelled=1), "bad_record", "labelled must be true or false, not 1"),
    (TEXT, choice("a", answer="a"), "bad_record", "unknown key 'answer'"),
    (VIDEO, points(at(8.0, 1, 1)), "bad_time", r"points\[0\].time 8.0 s is outside the clip \[3.0, 7.0\]"),
    (VIDEO, points(at(-1, 1, 1)), "bad_time", r"time -1 s is outside the clip \[3.0, 7.0\]"),
    (VIDEO, points(at(4, 641, 5)), "outside_frame", r"answer.points\[0\] \(641, 5\) is outside the 640x272 frame"),
    (VIDEO, points(at(4, 5, -1)), "outside_frame", r"\(5, -1\) is outside the 640x272 frame"),
    (VIDEO, points(at(4, 5, 101), scale=[100, 100]), "outside_frame", r"\(5, 101\) is outside the 100x100 frame"),
    (VIDEO, points(at(4, 5, 1), scale=[0, 100]), "bad_record", r"scale must be above 0, not \[0.0, 100.0\]"),
    (VIDEO, points(at(4, 5, 1), scale=100), "bad_record", r"scale must be \[width, height\] in numbers, not 100"),
    (VIDEO, points(at(4, "5", 1)), "bad_record", r"points\[0\].x must be a finite number, not '5'"),
    (VIDEO, points(at(4, True, 1)), "bad_record", r"points\[0\].x must be a finite number, not True"),
    (VIDEO, points(at(NAN, 1, 1)), "bad_record", r"points\[0\].time must be a finite number, not nan"),
    (VIDEO, points({"x": 1, "y": 1}), "bad_record", r"points\[0\] has no 'time'"),
    (VIDEO, points([1, 2, 3]), "bad_record", r"points\[0\] is not an object"),
    (VIDEO, points(label=""), "bad_record", "answer: 'label' is empty or not a string"),
    (VIDEO, points(points={}), "bad_record", r"messages\[0\].answer.points is not a list"),
    (VIDEO, points(alt=" "), "bad_record", "answer: 'alt' is empty or not a string"),
    (VIDEO, points(unanswerable=7), "bad_record", "answer.unanswerable must be a string, not 7"),
    (VIDEO, points(style="user_qa"), "bad_record", "answer has points, but style 'user_qa' is answered in words"),
    (
        VIDEO,
        points(at(4, 1, 1)) | {"explanation": "So."},
        "bad_record",
        "has an explanation, which only an answer in words",
    ),
    (TEXT, points(), "bad_record", "answer has points, but the record has neither video nor image"),
    (IMAGE, points(at(4, 1, 1), style="pointing"), "bad_record", r"points\[0\] has an unknown key 'time'"),
    (IMAGES, points({"x": 1, "y": 1}), "bad_record", r"points\[0\] has no 'image'"),
    (IMAGES, points({"image": 3, "x": 1, "y": 1}), "bad_record", r"points\[0\].image 3 is not one of 2 images"),
    (IMAGES, points({"image": 1.5, "x": 1, "y": 1}), "bad_record", r"points\[0\].image 1.5 is not one of 2 images"),
    (IMAGES, points({"image": 2, "x": 11, "y": 1}), "outside_frame", r"\(11, 1\) is outside the 10x10 frame"),
    (IMAGE, tracks((4, {"a": [1, 1]})), "bad_record", "answer has tracks, but the record has no video"),
    (VIDEO, tracks(fps=0), "bad_record", "answer.fps must be a whole number of frames per second, not 0"),
    (VIDEO, tracks(fps=2.5), "bad_record", "answer.fps must be a whole number of frames per second, not 2.5"),
    (VIDEO, tracks(fps=10**400), "bad_record", "answer.fps must be a whole number"),
    (VIDEO, tracks(tracks={}), "bad_record", "answer.tracks is not a list"),
    (VIDEO, tracks((4, [])), "bad_record", r"tracks\[0\] must have a time and an object of points"),
    (VIDEO, tracks((4, {"a": [1]})), "bad_record", r"tracks\[0\].points\['a'\] must be \[x, y\] in numbers"),
    (VIDEO, tracks((2.5, {"a": [1, 1]})), "bad_time", r"tracks\[0\].time 2.5 s is outside the clip"),
    (VIDEO, tracks((4, {}), (4.0, {})), "bad_time", "tracks has a time twice"),
    (VIDEO, tracks((4, {"a": [1, 273]})), "outside_frame", r"points\['a'\] \(1.0, 273.0\) is outside the 640x272"),
    (IMAGE, qa(answer="a car", points=[{"label": "a", "points": []}]), "bad_record", r"0 <\|POINT\|> in the answer, 1"),
    (IMAGE, qa(points=7), "bad_record", r"messages\[0\].points is not a list"),
    (IMAGE, qa(answer=["<|POINT|>"], points=[]), "bad_record", "'answer' is empty or not a string"),
    (
        IMAGE,
        qa(answer="<|POINT|>", points=[{"label": "a", "points": [{"x": 41, "y": 0}]}]),
        "outside_frame",
        r"messages\[0\].points\[0\].points\[0\] \(41, 0\) is outside",
    ),
    (VIDEO, qa(about=" "), "bad_record", r"about must be \[start, end\] in numbers, not ' '"),
    (VIDEO, qa(about=[5, 4]), "bad_time", r"about \[5, 4\] is outside the clip \[3.0, 7.0\]"),
    (VIDEO, qa(about=2), "bad_time", "about 2 is outside the clip"),
    (VIDEO, qa(about=[4, NAN]), "bad_record", r"about must be \[start, end\] in numbers"),
    (IMAGE, qa(about=2), "bad_record", "about is a time, but the record has no video"),
]


@pytest.mark.parametrize(("scene", "raw", "reason", "message"), BAD, ids=[message for *_, message in BAD])
def test_a_bad_annotation_is_named_with_its_reason(scene, raw, reason, message):
    with pytest.raises(RecordError, match=message) as caught:
        read(scene, raw)
    assert caught.value.reason == reason
    assert all(problem.startswith("a.jsonl:1: messages[0]") for problem in caught.value.problems)
