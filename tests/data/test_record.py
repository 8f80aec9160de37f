import json
import math
import shutil

import pytest
from PIL import Image

from molmo2_jax.data import record as record_lib
from molmo2_jax.data.record import PixelPoint, PointsAnswer, RecordError, load_records


def qa(**changes):
    return {"style": "user_qa", "user": "What is this?", "answer": "A street.", **changes}


def pointing(*points, style="video_point", **changes):
    return qa(style=style, answer={"label": "car", "points": list(points), **changes})


def video(*messages, **changes):
    return {"id": "street", "video": "bikes.mp4", "messages": list(messages) or [qa()], **changes}


def point(time, x, y):
    return {"time": time, "x": x, "y": y}


@pytest.fixture
def photo(folder):
    path = folder / "photo.png"
    Image.new("RGB", (40, 30), (200, 10, 10)).save(path)
    return path


def test_a_record_is_read_with_its_probed_video(write_records, folder):
    path = write_records(
        video(
            pointing(point(5.54, 120, 144.5), alt="the car"),
            qa(then=[qa(user="And then?", then=[qa(user="Why?")])]),
            clip=[3.04, 7.44],
        )
    )
    (got,) = load_records(path)
    (medium,) = got.media
    assert got.id == "street"
    assert got.where == f"{path}:1: record 'street'"
    assert (medium.path, medium.start, medium.end) == (folder / "bikes.mp4", 3.04, 7.44)
    assert medium.size == (640, 272)
    assert got.messages[0].answer == PointsAnswer("car", (PixelPoint(5.54, 120, 144.5),), "the car")
    assert got.messages[1].then[0].then[0].user == "Why?"


def test_without_a_clip_the_whole_video_is_shown(write_records):
    ((medium,),) = (r.media for r in load_records(write_records(video())))
    assert medium.start == 0
    assert medium.end == medium.info.duration == pytest.approx(10.0, abs=0.05)


def test_an_image_and_a_text_record(write_records, photo):
    image, text = load_records(
        write_records(
            {"id": "a", "image": "photo.png", "messages": [pointing({"x": 40, "y": 0}, style="pointing")]},
            {"id": "b", "messages": [qa(style="text_sft")]},
        )
    )
    assert image.media[0].size == (40, 30)
    assert image.messages[0].answer.points == (PixelPoint(None, 40, 0),)
    assert text.media == ()


def test_no_points_is_an_answer(write_records):
    assert load_records(write_records(video(pointing())))[0].messages[0].answer.points == ()


def test_each_medium_is_probed_once(write_records, monkeypatch):
    calls = []
    probe = record_lib.video_lib.probe
    monkeypatch.setattr(record_lib.video_lib, "probe", lambda path: calls.append(path) or probe(path))
    records = load_records(write_records(video(), video(id="again", clip=[1, 2])))
    assert len(records) == 2
    assert len(calls) == 1


NAN = math.nan
BAD = [
    (video(id=""), r"1: record '': the record: 'id' is empty or not a string"),
    ({"id": "street", "video": "bikes.mp4"}, r"record 'street': the record has no 'messages'"),
    (video(colour="red"), r"unknown key 'colour' \(known: clip, id, image, messages, video\)"),
    (video(image="a.png"), r"has both 'video' and 'image'"),
    ({"id": "street", "messages": [qa()], "clip": [0, 1]}, r"has a 'clip' but no 'video'"),
    (video(video="none.mp4"), r"none.mp4: no such file"),
    (video(video="cut.mp4"), r"cut.mp4: .*(cut off|damaged)"),
    (video(video="empty.mp4"), r"empty.mp4: the file is empty"),
    (video(video="."), r"\.: no such file"),
    (video(video="/etc/hostname"), r"/etc/hostname: media paths are relative and stay inside"),
    (video(video="../outside.mp4"), r"\.\./outside.mp4: media paths are relative and stay inside"),
    (video(video="link.mp4"), r"link.mp4: media paths are relative and stay inside"),
    (video(video="a\0.mp4"), r"media paths are relative"),
    ({"id": "street", "image": "cut.mp4", "messages": [qa()]}, r"cut.mp4"),
    (video(clip=[3.0, 3.0]), r"bikes.mp4: clip \[3.0, 3.0\] is empty or not inside the video, which lasts 10 s"),
    (video(clip=[3.0, 10.5]), r"bikes.mp4: clip \[3.0, 10.5\] is empty or not inside"),
    (video(clip=[-1, 2]), r"clip \[-1.0, 2.0\] is empty or not inside"),
    (video(clip=[0, NAN]), r"clip is \[start, end\] in seconds, not \[0, nan\]"),
    (video(clip="0-3"), r"clip is \[start, end\] in seconds, not '0-3'"),
    (video(clip=[0, 10**400]), r"clip is \[start, end\] in seconds"),
    (
        video(pointing(point(8.0, 1, 1)), clip=[3, 7]),
        r"bikes.mp4: .*points\[0\].time 8.0 s is outside the clip \[3.0, 7",
    ),
    (video(pointing(point(10.5, 1, 1))), r"time 10.5 s is outside the clip \[0.0, 10"),
    (video(pointing(point(1, 641, 5))), r"messages\[0\].answer.points\[0\] \(641, 5\) is outside the 640x272 frame"),
    (video(pointing(point(1, 5, -1))), r"\(5, -1\) is outside the 640x272 frame"),
    (video(pointing(point(1, "5", 1))), r"points\[0\].x is not a finite number: '5'"),
    (video(pointing(point(1, True, 1))), r"points\[0\].x is not a finite number: True"),
    (video(pointing(point(NAN, 1, 1))), r"points\[0\].time is not a finite number: nan"),
    (video(pointing({"x": 1, "y": 1})), r"points\[0\] has no 'time'"),
    (video(pointing([1, 2, 3])), r"points\[0\] is not an object"),
    (video(pointing(label="")), r"answer: 'label' is empty or not a string"),
    (video(pointing(points={})), r"messages\[0\].answer.points is not a list"),
    (video(pointing(alt=" ")), r"answer: 'alt' is empty or not a string"),
    (video(pointing(label="a <points b")), r"answer: label 'a <points b' holds a points or tracks tag itself"),
    (video(pointing(alt='a "car"')), r"answer: alt 'a \"car\"' holds a \" or a line end"),
    (video(pointing(style="user_qa")), r"answer points, but style 'user_qa' is answered in words"),
    ({"id": "street", "messages": [pointing()]}, r"points, but the record has neither video nor image"),
    (video(qa(user="  ")), r"messages\[0\]: 'user' is empty or not a string"),
    (video(qa(answer="")), r"messages\[0\]: 'answer' is empty or not a string"),
    (video(qa(answer=2)), r"messages\[0\]: 'answer' is empty or not a string"),
    (video(qa(style="poem")), r"messages\[0\].style 'poem' is unknown \(known: a_okvqa_da"),
    (video(qa(then=[])), r"messages\[0\].then is empty or not a list"),
    (video(qa(then=[qa(then=[qa(user="")])])), r"messages\[0\].then\[0\].then\[0\]: 'user' is empty"),
    (video(qa(than=[])), r"messages\[0\] has an unknown key 'than'"),
    (video(messages=[]), r"messages is empty or not a list"),
]


@pytest.mark.parametrize(("raw", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_named(write_records, folder, raw, message):
    whole = (folder / "bikes.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    outside = folder.parent / "outside.mp4"
    shutil.copy(folder / "bikes.mp4", outside)
    (folder / "link.mp4").symlink_to(outside)
    with pytest.raises(RecordError, match=message) as caught:
        load_records(write_records(raw))
    assert all(problem.startswith(str(folder / "records.jsonl")) for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "1: not a JSON object"),
        (b"", "1: not a JSON object"),
        (b"[1]", "1: not a JSON object: list"),
        (b'{"id": "\xff"}', "1: not a JSON object"),
        (b'{"id": "a", "id": "b", "messages": []}', "key 'id' appears twice"),
        (b'{"id": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_line_is_named(folder, line, message):
    (folder / "a.jsonl").write_bytes(line + b"\n")
    with pytest.raises(RecordError, match=message):
        load_records(folder / "a.jsonl")


def test_a_path_that_works_on_one_machine_only_is_refused(write_records, folder):
    with pytest.raises(RecordError, match="media paths are relative and stay inside"):
        load_records(write_records(video(video=str(folder / "bikes.mp4"))))


def test_deep_conversations_are_read(write_records):
    message = qa()
    for _ in range(100):
        message = qa(then=[message])
    (got,) = load_records(write_records(video(message)))
    assert len(json.dumps(message)) > 100
    depth, node = 0, got.messages[0]
    while node.then:
        depth, node = depth + 1, node.then[0]
    assert depth == 100


def test_all_problems_of_a_file_come_together(write_records):
    path = write_records(
        video(qa(style="poem", user="")),
        video(id="ok"),
        video(id="ok", video="none.mp4"),
        video(id="far", clip=[9, 12]),
    )
    with pytest.raises(RecordError) as caught:
        load_records(path)
    heads = [problem.removeprefix(f"{path}:").partition(": messages")[0] for problem in caught.value.problems]
    assert heads[:2] == ["1: record 'street'"] * 2
    assert heads[2:] == [
        "3: record 'ok': the id is taken by line 2",
        "3: record 'ok': none.mp4: no such file",
        "4: record 'far': bikes.mp4: clip [9.0, 12.0] is empty or not inside the video, which lasts 10 s",
    ]
    assert str(caught.value).splitlines() == list(caught.value.problems)


def test_a_missing_or_empty_file_is_named(folder):
    with pytest.raises(RecordError, match=r"none.jsonl: no such records file"):
        load_records(folder / "none.jsonl")
    (folder / "empty.jsonl").write_text("")
    with pytest.raises(RecordError, match=r"empty.jsonl: holds no records"):
        load_records(folder / "empty.jsonl")
