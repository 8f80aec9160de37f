"""From published rows to light records: pure functions, against rows in the published schema."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import cap, pixmo_points, video_point
from data_pipelines.entry import PrepareError, Skipped
from molmo2_jax.data.record import read_record

SAMPLES = Path(__file__).parents[2] / "data_pipelines" / "samples"


def rows(name):
    return [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text().splitlines()]


def made(entry, rows):
    skipped = Skipped()
    return list(entry.drafts(entry.check(rows, skipped), skipped)), dict(skipped)


FEW, SOME, MANY = video_point.ENTRIES


def point_row(**changes):
    row = {"video_id": "v", "video_duration": 30.0, "clip_start": None, "clip_end": None, "label": "cat"}
    row |= {"question": "How many cats?", "two_fps_timestamps": [1.0, 2.5], "annotator_unsure": False}
    return row | {"points": [[{"x": 10.0, "y": 20.0}], [{"x": 30.0, "y": 40.0}, {"x": 50.0, "y": 60.0}]]} | changes


def test_points_of_a_short_video_stand_in_one_record():
    (cyclists, car), skipped = made(FEW, rows("molmo2_video_point"))
    assert skipped == {"annotator unsure": 1, "long video without a clip": 1}
    assert (cyclists["id"], cyclists["video"], len(cyclists["messages"])) == (
        "street_cyclists",
        "street_cyclists_2fps.mp4",
        3,
    )
    count, point = cyclists["messages"][2]["any"]
    assert (count["style"], count["question"]) == ("video_point_count", "How many bicycles does the video show?")
    assert point["style"] == "video_point" and "question" not in point
    assert count["answer"] == point["answer"]
    assert count["answer"]["points"][0] == {"time": 1.5, "x": 62.0, "y": 88.0}
    assert count["answer"]["scale"] == [100, 100]
    assert car["messages"][1]["any"][0]["answer"]["points"] == []  # none to be seen is an answer


@pytest.mark.parametrize(
    ("count", "entry"), [(0, FEW), (5, FEW), (6, SOME), (25, SOME), (26, MANY), (60, MANY), (61, None)]
)
def test_rows_are_sorted_by_their_number_of_points(count, entry):
    row = point_row(points=[[{"x": 1.0, "y": 1.0}] * count, []])
    for one in video_point.ENTRIES:
        drafts, skipped = made(one, [row])
        assert len(drafts) == (one is entry) and sum(skipped.values()) == (one is not entry)


def test_a_long_video_is_its_clip_and_times_fall_on_its_grid():
    row = point_row(video_duration=100.0, clip_start=20.3, clip_end=60.3, two_fps_timestamps=[20.4, 21.2])
    ((record,), _) = made(FEW, [row])
    assert record["clip"] == [20.3, 60.3]
    times = [p["time"] for p in record["messages"][0]["any"][0]["answer"]["points"]]
    assert times == pytest.approx([20.3, 20.8, 20.8])  # half seconds since the clip's start
    (records, _) = made(FEW, [row, row | {"label": "dog"}])
    assert len({record["id"] for record in records}) == 2  # a clip each


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"video_duration": None}, "no video_duration"),
        ({"points": None}, "no points"),
        ({"label": " "}, "no label"),
        ({"points": [[]]}, "not a list of points for each time"),
        ({"points": [None, []]}, "not a list of points for each time"),
        ({"two_fps_timestamps": [1.0, None]}, "not a list of points for each time"),
        ({"points": [[{"x": 1.0}], []]}, "a point without x or y"),
        ({"points": [[{"x": None, "y": 1.0}], []]}, "a point without x or y"),
        ({"points": [[{"x": 1.0, "y": float("nan")}], []]}, "a point without x or y"),
        ({"points": [[{"x": 1.0, "y": 100.5}], []]}, "a point outside the frame"),
        ({"two_fps_timestamps": [1.0, 30.5]}, "time outside the clip"),  # of a short video: its whole length
        ({"video_duration": 200.0}, "long video without a clip"),
        ({"video_duration": 200.0, "clip_start": 1.0}, "long video without a clip"),
        ({"video_duration": 200.0, "clip_start": 0.0, "clip_end": 63.5}, "clip longer than 63 s"),
        ({"video_duration": 200.0, "clip_start": 190.0, "clip_end": 201.0}, "clip outside the video"),
        ({"video_duration": 200.0, "clip_start": 9.0, "clip_end": 9.0}, "clip outside the video"),
        ({"video_duration": 200.0, "clip_start": 1.5, "clip_end": 60.0}, "time outside the clip"),
        ({"annotator_unsure": True}, "annotator unsure"),
    ],
)
def test_a_row_that_cannot_be_shown_is_left_out_alone(changes, reason):
    ((record,), skipped) = made(FEW, [point_row(), point_row(**{"label": "dog"} | changes)])
    assert skipped == {reason: 1} and len(record["messages"]) == 1


def test_one_video_in_five_is_a_conversation():
    several = [point_row(label=label) for label in ("cat", "dog", "bird")]
    chained = 0
    for number in range(200):
        ((record,), _) = made(FEW, [row | {"video_id": f"v{number}"} for row in several])
        ((again,), _) = made(FEW, [row | {"video_id": f"v{number}"} for row in several])
        assert record == again  # nothing is drawn anew
        if len(record["messages"]) == 1:
            chained += 1
            (first,) = record["messages"]
            labels = [m["answer"]["label"] for m in (first, first["then"][0], first["then"][0]["then"][0])]
            assert labels == ["cat", "dog", "bird"]
        else:
            assert all(len(m["any"]) == 2 for m in record["messages"])
    assert 20 <= chained <= 60


PERCENT = st.floats(-5, 105) | st.none() | st.just(float("nan"))
PLACE = st.fixed_dictionaries({"x": PERCENT, "y": PERCENT}) | st.fixed_dictionaries({"x": st.floats(0, 100)})
SECONDS = st.floats(-1, 130)


@st.composite
def video_rows(draw):
    times = draw(st.lists(SECONDS, max_size=4))
    points = st.lists(st.lists(PLACE, max_size=3) | st.none(), min_size=len(times), max_size=len(times))
    few, good = draw(st.booleans()), st.fixed_dictionaries({"x": st.floats(0, 100), "y": st.floats(0, 100)})
    return point_row(
        video_id=draw(st.sampled_from("ab")),
        video_duration=draw(st.none() | st.floats(0, 130)),
        clip_start=draw(st.none() | SECONDS),
        clip_end=draw(st.none() | SECONDS),
        label=draw(st.sampled_from([None, " ", "cat", "dog"])),
        question=draw(st.sampled_from([None, " ", "How many?"])),
        two_fps_timestamps=times,
        points=[draw(st.lists(good, max_size=1)) for _ in times] if few else draw(points),
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(video_rows(), max_size=6))
def test_whatever_rows_hold_training_reads_the_records(rows):
    drafts, skipped = made(FEW, rows)
    shown = 0
    for draft in drafts:
        facts = {"at": draft["video"], "width": 320, "height": 136, "duration": 130.0}
        record = read_record(json.dumps(draft | {"video": facts}).encode(), "media", "row")
        shown += sum(1 for _ in messages(record.messages))
    assert shown + sum(skipped.values()) == len(rows)


def messages(tree):
    for message in tree:
        yield message
        yield from messages(getattr(message, "then", ()))


def test_captions_are_branches_by_what_they_describe():
    (entry,) = cap.ENTRIES
    ((record,), skipped) = made(entry, rows("molmo2_cap"))
    assert skipped == {"score below 3": 1}
    assert [m["style"] for m in record["messages"]] == [
        "video_short_caption",
        "video_merged_caption",
        "video_long_caption",
    ]
    row = rows("molmo2_cap")[0]
    ((short,), _) = made(entry, [row | {"merged_caption": " ", "video_frame_merged_caption": None}])
    assert len(short["messages"]) == 1
    assert made(entry, [row | dict.fromkeys(cap.STYLES, "")]) == ([], {"no caption": 1})
    assert made(entry, [row | {"video_id": "N8BlpYSpgg4"}]) == ([], {"broken video": 1})
    assert made(entry, [row | {"annotation_score": None}]) == ([], {"score below 3": 1})
    assert made(entry, [row | {"video_id": None}]) == ([], {"no video_id": 1})


def test_points_of_an_image_come_to_count_and_to_point():
    entry, high = pixmo_points.ENTRIES
    records, skipped = made(entry, rows("pixmo_points"))
    assert skipped == {"not collected by pointing": 1}
    assert len(records) == 6 and len({record["id"] for record in records}) == 6
    assert [m["style"] for m in records[0]["messages"] + records[1]["messages"]] == ["point_count"] * 2 + [
        "pointing"
    ] * 2
    assert [m["answer"]["label"] for m in records[2]["messages"]] == ["black car", "bicycle", "giraffe"]
    assert (SAMPLES / "media" / records[0]["image"]["file"]).is_file()
    assert len(made(high, rows("pixmo_points"))[0]) == 2


def pixmo(count, label="a", **changes):
    points = [{"x": 1.0, "y": 2.0}] * count
    return {
        "image_url": "u",
        "image_sha256": "5e",
        "label": label,
        "points": points,
        "collection_method": "pointing",
    } | changes


@pytest.mark.parametrize(
    ("counts", "parts"),
    [([30, 20, 20], [2, 1]), ([60, 1], [1, 1]), ([20, 20, 20], [3]), ([0, 60], [2]), ([61, 5], [1])],
)
def test_a_record_has_sixty_points_at_most(counts, parts):
    records, skipped = made(pixmo_points.ENTRIES[0], [pixmo(n, f"label {i}") for i, n in enumerate(counts)])
    assert [len(record["messages"]) for record in records[::2]] == parts
    assert skipped.get("more than 60 points", 0) == sum(n > 60 for n in counts)


def test_what_a_row_need_not_say_costs_nothing():
    row = point_row(question=" ", annotator_unsure=None, clip_start=None, clip_end=None)
    ((record,), skipped) = made(FEW, [row])
    assert skipped == {} and "question" not in record["messages"][0]["any"][0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": None}, "no label"),
        ({"label": " "}, "no label"),
        ({"points": None}, "no points"),
        ({"image_sha256": None}, "no image_sha256"),
        ({"image_url": None}, "no image_url"),
        ({"points": [None]}, "a point without x or y"),
        ({"points": [{"x": 1.0}]}, "a point without x or y"),
    ],
)
def test_a_row_of_an_image_that_is_not_whole_is_left_out_alone(changes, reason):
    records, skipped = made(pixmo_points.ENTRIES[0], [pixmo(1, **changes), pixmo(1)])
    assert len(records) == 2 and skipped == {reason: 1}


def test_points_a_hair_outside_are_brought_in():
    row = pixmo(0, points=[{"x": -0.2, "y": 100.4}])
    (record, _), _ = made(pixmo_points.ENTRIES[0], [row])
    assert record["messages"][0]["answer"]["points"] == [{"x": 0, "y": 100}]


def test_a_row_without_a_column_is_named():
    row = pixmo(1)
    del row["points"]
    with pytest.raises(PrepareError, match="pixmo_points: row 1 has no points"):
        made(pixmo_points.ENTRIES[0], [pixmo(1), row])


def test_rows_of_the_evaluation_set_are_left_out():
    skipped, entry = Skipped(), pixmo_points.ENTRIES[0]
    kept = list(entry.check([pixmo(1), pixmo(2, image_url="v"), pixmo(3)], skipped, frozenset({"u", "w"})))
    assert [len(row["points"]) for row in kept] == [2] and skipped == {"held out for evaluation": 2}
