"""Records: how one is read, and every problem of its keys and media, with its reason."""

import json
import math
import shutil

import pytest
from PIL import Image

from data_pipelines.errors import REASONS
from data_pipelines.media.medium import ImageMedium, VideoMedium
from data_pipelines.records.problems import RecordError
from data_pipelines.records.read import read_record


def qa(**changes):
    return {"style": "user_qa", "user": "What is this?", "answer": "A street.", **changes}


def video(*messages, **changes):
    return {"id": "street", "video": "bikes.mp4", "messages": list(messages) or [qa()], **changes}


def image(**changes):
    return {"id": "photo", "image": "photo.png", "messages": [qa()], **changes}


@pytest.fixture
def read(folder):
    """Read a record (or the bytes of a line) whose media are in `folder`: bikes.mp4, photo.png and broken ones."""
    Image.new("RGB", (40, 30), (200, 10, 10)).save(folder / "photo.png")
    whole = (folder / "bikes.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    outside = folder.parent / "outside.mp4"
    shutil.copy(folder / "bikes.mp4", outside)
    (folder / "link.mp4").symlink_to(outside)
    return lambda raw: read_record(
        raw if isinstance(raw, bytes) else json.dumps(raw).encode(), str(folder), "records.jsonl:7"
    )


def test_a_record_is_read_with_its_probed_video(read, folder):
    got = read(video(qa(then=[qa(user="And then?", then=[qa(user="Why?")])]), clip=[3.04, 7.44]))
    (medium,) = got.media
    assert isinstance(medium, VideoMedium)
    assert (got.id, got.where) == ("street", "records.jsonl:7: record 'street'")
    assert medium.location.source() == str(folder / "bikes.mp4")
    assert (medium.start, medium.end, medium.size, medium.frame_rates) == (3.04, 7.44, (640, 272), None)
    assert got.messages[0].then[0].then[0].user == "Why?"
    assert got.subtitles is None


def test_without_a_clip_the_whole_video_is_shown(read):
    (medium,) = read(video()).media
    assert medium.start == 0
    assert medium.end == medium.duration == pytest.approx(10.0, abs=0.05)


def test_what_a_record_states_is_not_probed(read):
    facts = {"at": "far/media-00000.array_record#17", "width": 64, "height": 48, "duration": 9.5}
    (medium,) = read(video(video=facts, clip=[1, 9.5], frame_rates=[3, 1])).media
    assert (medium.size, medium.duration, medium.end) == ((64, 48), 9.5, 9.5)
    assert medium.frame_rates == (1, 3)


def test_images_and_text_records(read):
    (photo,) = read(image()).media
    assert isinstance(photo, ImageMedium)
    assert photo.size == (40, 30)
    both = {"id": "two", "images": [{"at": "none.jpg", "width": 9, "height": 5}, "photo.png"], "messages": [qa()]}
    assert [medium.size for medium in read(both).media] == [(9, 5), (40, 30)]
    assert read({"id": "b", "messages": [qa(style="text_sft")]}).media == ()


def test_subtitles_are_in_the_clip_s_own_time(read):
    lines = [[7.0, 8.5, "late"], [0.5, 2.5, "before"], [2.75, 3.5, "across"], [4.0, 5.0, "in"], [8.75, 9, "after"]]
    got = read(video(clip=[3.0, 7.5], subtitles=lines)).subtitles
    assert got == ((-0.25, 0.5, "across"), (1.0, 2.0, "in"), (4.0, 5.5, "late"))
    assert read(video(subtitles="as it is")).subtitles == "as it is"
    assert read(video(subtitles=[])).subtitles == ()


def test_deep_conversations_are_read(read):
    message = qa()
    for _ in range(100):
        message = qa(then=[message])
    depth, node = 0, read(video(message)).messages[0]
    while node.then:
        depth, node = depth + 1, node.then[0]
    assert depth == 100


def facts(**changes):
    return {"at": "bikes.mp4", "width": 640, "height": 272, "duration": 10.0} | changes


NAN = math.nan
OUTSIDE = "media have a relative name and stay inside"
BAD = [
    (video(id=""), "bad_record", "record '': the record: 'id' is empty or not a string"),
    (video(id=7), "bad_record", "record 7: the record: 'id' is empty"),
    ({"id": "street", "video": "bikes.mp4"}, "bad_record", "record 'street': the record has no 'messages'"),
    (
        video(colour="red"),
        "bad_record",
        r"unknown key 'colour' \(known: clip, frame_rates, id, image, images, messages",
    ),
    (video(image="a.png"), "bad_record", "has both 'video' and 'image'"),
    (image(images=["a.png"]), "bad_record", "has both 'image' and 'images'"),
    (image(clip=[0, 1]), "bad_record", "has 'clip' but no 'video'"),
    (image(frame_rates=[1]), "bad_record", "has 'frame_rates' but no 'video'"),
    ({"id": "a", "messages": [qa()], "subtitles": "s"}, "bad_record", "has 'subtitles' but no 'video'"),
    (video(video="none.mp4"), "no_file", "none.mp4: no such file"),
    (video(video="none.array_record#1"), "no_file", "none.array_record#1: no such file"),
    (video(video="cut.mp4"), "cut_off", "cut.mp4: .*(cut off|damaged)"),
    (video(video="empty.mp4"), "empty_file", "empty.mp4: the file is empty"),
    (video(video="photo.png"), "not_media", "photo.png"),
    (image(image="bikes.mp4"), "not_media", "bikes.mp4: not an image"),
    (video(video="."), "bad_record", OUTSIDE),
    (video(video=""), "bad_record", OUTSIDE),
    (video(video="/etc/hostname"), "bad_record", f"/etc/hostname'?: {OUTSIDE}"),
    (video(video="../outside.mp4"), "bad_record", OUTSIDE),
    (video(video="link.mp4"), "bad_record", f"link.mp4: {OUTSIDE}"),
    (video(video="a\0.mp4"), "bad_record", OUTSIDE),
    (video(video=7), "bad_record", "video is not an object"),
    (video(video=facts(width=0)), "bad_record", "video.width must be a number above 0, not 0"),
    (video(video=facts(width=0.5)), "bad_record", "video.width must be a whole number of pixels, not 0.5"),
    (video(video=facts(duration=NAN)), "bad_record", "video.duration must be a number above 0, not nan"),
    (video(video=facts(at=" ")), "bad_record", "video: 'at' is empty or not a string"),
    (video(video={"at": "bikes.mp4"}), "bad_record", "video has no 'duration'"),
    (image(image=facts()), "bad_record", "image has an unknown key 'duration'"),
    ({"id": "a", "images": [], "messages": [qa()]}, "bad_record", "images is empty or not a list"),
    ({"id": "a", "images": "photo.png", "messages": [qa()]}, "bad_record", "images is empty or not a list"),
    ({"id": "a", "images": ["photo.png", "b.png"], "messages": [qa()]}, "no_file", "b.png: no such file"),
    (video(clip=[3.0, 3.0]), "bad_time", r"bikes.mp4: clip \[3.0, 3.0\] is empty or not inside .* lasts 10 s"),
    (video(clip=[5, 3]), "bad_time", r"clip \[5.0, 3.0\] is empty or not inside"),
    (video(clip=[3.0, 10.5]), "bad_time", r"clip \[3.0, 10.5\] is empty or not inside"),
    (video(clip=[-1, 2]), "bad_time", r"clip \[-1.0, 2.0\] is empty or not inside"),
    (video(clip=[0, NAN]), "bad_record", r"clip must be \[start, end\] in numbers, not \[0, nan\]"),
    (video(clip="0-3"), "bad_record", r"clip must be \[start, end\] in numbers, not '0-3'"),
    (video(clip=[0, 10**400]), "bad_record", r"clip must be \[start, end\] in numbers"),
    (video(frame_rates=[]), "bad_record", "frame_rates must be a list of numbers above 0"),
    (video(frame_rates=[1, 0]), "bad_record", "frame_rates must be a list of numbers above 0"),
    (video(subtitles=7), "bad_record", "subtitles must be a text or a list"),
    (video(subtitles=[[0, 1]]), "bad_record", r"subtitles\[0\] must be \[start, end, text\], not \[0, 1\]"),
    (video(subtitles=[[0, "1", "a"]]), "bad_record", r"subtitles\[0\] must be \[start, end\] in numbers"),
    (video(subtitles=[[0, 1, "a"], [3, 2, "b"]]), "bad_time", r"subtitles\[1\] is from 3.0 to 2.0 s"),
    (video(subtitles=[[-1, 2, "b"]]), "bad_time", r"subtitles\[0\] is from -1.0 to 2.0 s"),
    (video(messages=[]), "bad_record", "messages is empty or not a list"),
    (video(qa(style="poem"), clip=[1, 2]), "bad_record", r"messages\[0\].style 'poem' is unknown"),
    (b"{", "bad_record", "records.jsonl:7: not a JSON object"),
    (b"", "bad_record", "7: not a JSON object"),
    (b"[1]", "bad_record", "7: not a JSON object: list"),
    (b'{"id": "\xff"}', "bad_record", "7: not a JSON object"),
    (video(qa(answer="\ud800")), "bad_record", r"7: not a JSON object: .*ud800"),
    (b'{"id": "a", "id": "b", "messages": []}', "bad_record", "key 'id' appears twice"),
    (b'{"id": ' + b"[" * 100_000, "bad_record", "nested too deeply"),
]


@pytest.mark.parametrize(("raw", "reason", "message"), BAD, ids=[message for _, _, message in BAD])
def test_bad_input_is_named_with_its_reason(read, raw, reason, message):
    with pytest.raises(RecordError, match=message) as caught:
        read(raw)
    assert caught.value.reason == reason
    assert reason in REASONS
    assert all(problem.startswith("records.jsonl:7: ") for problem in caught.value.problems)


def test_both_halves_of_an_escaped_character_are_one(read):
    assert read(video(qa(answer="\U0001f6b2"))).messages[0].answer.answers == ("\U0001f6b2",)


def test_all_problems_of_a_record_come_together(read):
    with pytest.raises(RecordError) as caught:
        read(video(qa(style="poem", user=""), qa(answer=2), clip=[1, 2], subtitles=[[2, 1, "a"]]))
    heads = [problem.removeprefix("records.jsonl:7: record 'street': ")[:11] for problem in caught.value.problems]
    assert heads == ["subtitles[0", "messages[0]", "messages[0]", "messages[1]"]
    assert caught.value.reason == "bad_time"  # the first one's
    assert str(caught.value).splitlines() == list(caught.value.problems)
