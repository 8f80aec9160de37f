"""From published rows to drafts: pure functions, against rows in the published schema."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.datasets import molmo2_cap, molmo2_video_point, pixmo_points
from data_pipelines.datasets.catalog import ENTRIES
from data_pipelines.datasets.core.entry import PrepareError, Skipped
from data_pipelines.records.annotations import AnyOf, Message, Points, Text
from data_pipelines.records.read import read_record
from data_pipelines.records.write import NamedMedium, write_draft
from data_pipelines.text.points import Point

SAMPLES = Path(__file__).parents[3] / "data_pipelines" / "datasets" / "samples"


def rows(name):
    return [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text().splitlines()]


def made(entry, rows):
    skipped = Skipped()
    return list(entry.drafts(entry.check(rows, skipped), skipped)), dict(skipped)


FEW, SOME, MANY = molmo2_video_point.ENTRIES


def point_row(**changes):
    row = {"video_id": "v", "video_duration": 30.0, "clip_start": None, "clip_end": None, "label": "cat"}
    row |= {"question": "How many cats?", "two_fps_timestamps": [1.0, 2.5], "annotator_unsure": False}
    return row | {"points": [[{"x": 10.0, "y": 20.0}], [{"x": 30.0, "y": 40.0}, {"x": 50.0, "y": 60.0}]]} | changes


def test_names_are_those_of_the_recipe():
    assert list(ENTRIES) == [
        "vixmo_points_minmax_0_5",
        "vixmo_points_minmax_6_25",
        "vixmo_points_minmax_26_60",
        "vixmo3_top_level_captions_min_3",
        "pixmo_points_train",
        "pixmo_points_high_freq_train",
    ]


def test_points_of_a_short_video_are_one_record():
    (cyclists, car), skipped = made(FEW, rows("molmo2_video_point"))
    assert skipped == {"annotator unsure": 1, "long video without a clip": 1}
    assert (cyclists.id, cyclists.video, cyclists.clip, len(cyclists.messages)) == (
        "street_cyclists",
        NamedMedium("street_cyclists_2fps.mp4", None),
        None,
        3,
    )
    count, point = cyclists.messages[2].choices
    assert (count.style, count.question) == ("video_point_count", "How many bicycles does the video show?")
    assert point.style == "video_point" and point.question is None
    assert count.answer == point.answer
    assert count.answer.points[0] == Point(1.5, 0.62, 0.88)
    assert car.messages[1].choices[0].answer.points == ()  # that there are none is an answer, too


@pytest.mark.parametrize(
    ("count", "entry"), [(0, FEW), (5, FEW), (6, SOME), (25, SOME), (26, MANY), (60, MANY), (61, None)]
)
def test_an_entry_has_the_rows_of_its_number_of_points(count, entry):
    row = point_row(points=[[{"x": 1.0, "y": 1.0}] * count, []])
    for one in molmo2_video_point.ENTRIES:
        drafts, skipped = made(one, [row])
        assert len(drafts) == (one is entry) and sum(skipped.values()) == (one is not entry)


def test_a_long_video_is_its_clip_and_times_fall_on_its_grid():
    row = point_row(video_duration=100.0, clip_start=20.3, clip_end=60.3, two_fps_timestamps=[20.4, 21.2])
    ((draft,), _) = made(FEW, [row])
    assert draft.clip == (20.3, 60.3)
    times = [point.key for point in draft.messages[0].choices[0].answer.points]
    assert times == pytest.approx([0.0, 0.5, 0.5])  # half seconds since the clip's start
    (drafts, _) = made(FEW, [row, row | {"label": "dog"}])
    assert len({draft.id for draft in drafts}) == 2  # one clip each


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 2000), st.integers(0, 120), st.floats(0, 100), st.integers(0, 100))
def test_numbers_are_the_table_s_to_the_last_bit(start, steps, x, y):
    """As if JSON had seconds of the video and percent, which reading turns into seconds of the clip and fractions."""
    row = point_row(video_duration=2100.0, clip_start=start, clip_end=start + 62.5)
    row |= {"two_fps_timestamps": [start + steps * 0.5], "points": [[{"x": x, "y": y}]]}
    ((draft,), _) = made(FEW, [row])
    (point,) = draft.messages[0].choices[1].answer.points
    answer = {"label": "cat", "points": [{"time": start + steps * 0.5, "x": x, "y": y}], "scale": [100, 100]}
    by_hand = {
        "id": "v",
        "video": {"at": "v.mp4", "width": 320, "height": 136, "duration": 2100.0},
        "clip": [start, start + 62.5],
        "messages": [{"style": "video_point", "answer": answer}],
    }
    assert read_record(json.dumps(by_hand).encode(), "media", "row").messages[0].answer.points == (point,)


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
    ((draft,), skipped) = made(FEW, [point_row(), point_row(**{"label": "dog"} | changes)])
    assert skipped == {reason: 1} and len(draft.messages) == 1


def test_one_video_in_five_is_a_conversation():
    several = [point_row(label=label) for label in ("cat", "dog", "bird")]
    chained = 0
    for number in range(200):
        ((draft,), _) = made(FEW, [row | {"video_id": f"v{number}"} for row in several])
        ((again,), _) = made(FEW, [row | {"video_id": f"v{number}"} for row in several])
        assert draft == again  # nothing is drawn anew
        if len(draft.messages) == 1:
            chained += 1
            (first,) = draft.messages
            labels = [message.answer.label for message in (first, first.then[0], first.then[0].then[0])]
            assert labels == ["cat", "dog", "bird"]
        else:
            assert all(len(one.choices) == 2 for one in draft.messages)
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
        facts = {"at": draft.video.name, "width": 320, "height": 136, "duration": 130.0}
        record = read_record(json.dumps(write_draft(draft) | {"video": facts}).encode(), "media", "row")
        assert record.messages == draft.messages
        shown += sum(1 for _ in messages(record.messages))
    assert shown + sum(skipped.values()) == len(rows)


def messages(tree):
    for message in tree:
        yield message
        yield from messages(getattr(message, "then", ()))


def test_captions_are_branches_of_one_style_each():
    (entry,) = molmo2_cap.ENTRIES
    ((draft,), skipped) = made(entry, rows("molmo2_cap"))
    assert skipped == {"score below 3": 1}
    assert (draft.id, draft.video) == ("street_cyclists", NamedMedium("street_cyclists.mp4"))
    assert [message.style for message in draft.messages] == [
        "video_short_caption",
        "video_merged_caption",
        "video_long_caption",
    ]
    row = rows("molmo2_cap")[0]
    ((short,), _) = made(entry, [row | {"merged_caption": " ", "video_frame_merged_caption": None}])
    caption = Text((row["video_caption"],), None)
    assert short.messages == (Message("video_short_caption", None, None, None, caption, 1.0, ()),)
    assert made(entry, [row | dict.fromkeys(molmo2_cap.STYLES, "")]) == ([], {"no caption": 1})
    assert made(entry, [row | {"video_id": "N8BlpYSpgg4"}]) == ([], {"broken video": 1})
    assert made(entry, [row | {"annotation_score": None}]) == ([], {"score below 3": 1})
    assert made(entry, [row | {"video_id": None}]) == ([], {"no video_id": 1})


def test_points_of_an_image_come_to_count_and_to_point():
    entry, high = pixmo_points.ENTRIES
    drafts, skipped = made(entry, rows("pixmo_points"))
    assert skipped == {"not collected by pointing": 1}
    assert len(drafts) == 6 and len({draft.id for draft in drafts}) == 6
    assert [message.style for message in drafts[0].messages + drafts[1].messages] == ["point_count"] * 2 + [
        "pointing"
    ] * 2
    assert [message.answer.label for message in drafts[2].messages] == ["black car", "bicycle", "giraffe"]
    (image,) = drafts[0].images
    assert (SAMPLES / "media" / image.name).is_file() and image.sha256 == rows("pixmo_points")[0]["image_sha256"]
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
    drafts, skipped = made(pixmo_points.ENTRIES[0], [pixmo(n, f"label {i}") for i, n in enumerate(counts)])
    assert [len(draft.messages) for draft in drafts[::2]] == parts
    assert skipped.get("more than 60 points", 0) == sum(n > 60 for n in counts)


def test_a_row_may_lack_what_is_nullable():
    row = point_row(question=" ", annotator_unsure=None, clip_start=None, clip_end=None)
    ((draft,), skipped) = made(FEW, [row])
    (either,) = draft.messages
    assert skipped == {} and isinstance(either, AnyOf) and either.choices[0].question is None


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
def test_an_incomplete_row_of_an_image_is_left_out_alone(changes, reason):
    drafts, skipped = made(pixmo_points.ENTRIES[0], [pixmo(1, **changes), pixmo(1)])
    assert len(drafts) == 2 and skipped == {reason: 1}


def test_points_slightly_outside_are_clamped():
    row = pixmo(0, points=[{"x": -0.2, "y": 100.4}])
    (draft, _), _ = made(pixmo_points.ENTRIES[0], [row])
    assert draft.messages[0].answer == Points("a", (Point(1, 0.0, 1.0),), None, None)


def test_a_row_without_a_column_is_named():
    row = pixmo(1)
    del row["points"]
    with pytest.raises(PrepareError, match="pixmo_points_train: row 1 has no points"):
        made(pixmo_points.ENTRIES[0], [pixmo(1), row])


def test_rows_of_the_evaluation_set_are_left_out():
    skipped, entry = Skipped(), pixmo_points.ENTRIES[0]
    kept = list(entry.check([pixmo(1), pixmo(2, image_url="v"), pixmo(3)], skipped, frozenset({"u", "w"})))
    assert [len(row["points"]) for row in kept] == [2] and skipped == {"held out for evaluation": 2}
