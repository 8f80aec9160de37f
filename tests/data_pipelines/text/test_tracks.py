"""Track answers: objects keep their numbers, frames are selected, and answers are parsed back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.text.points import parse_points
from data_pipelines.text.tracks import TrackFrame, from_query, start_and_end, track_frames, write_tracks

DOGS = (  # b is first in the record but is to the right of a; at 0.5 s it is hidden
    TrackFrame(0.0, {"b": (0.469, 0.556), "a": (0.156, 0.139)}),
    TrackFrame(0.5, {"a": (0.172, 0.139)}),
    TrackFrame(1.0, {"c": (0.002, 0.003), "b": (0.5, 0.556), "a": (0.188, 0.139)}),
)


def write(label, frames, **kwargs):
    return write_tracks(label, frames, version="html-v2", **kwargs)


def parse(text):
    (tag,) = parse_points(text)
    return track_frames(tag)


# Writing: outputs of the public reference


@pytest.mark.parametrize("version, s", [("html-v1", "\t"), ("html-v2", ";")])
def test_every_frame(version, s):
    coords = f"0.0 1 156 139 2 469 556{s}0.5 1 172 139{s}1.0 1 188 139 2 500 556 3 002 003"
    assert write_tracks("the dogs", DOGS, version=version) == f'<tracks coords="{coords}">the dogs</tracks>'


@pytest.mark.parametrize("version, s", [("html-v1", "\t"), ("html-v2", ";")])
def test_first_and_last_only(version, s):
    coords = f"0.0 1 156 139 2 469 556{s}1.0 1 188 139 2 500 556 3 002 003"
    text = write_tracks("the dogs", start_and_end(DOGS), version=version)
    assert text == f'<tracks coords="{coords}">the dogs</tracks>'


def test_single_track():
    assert write("the dog", from_query(DOGS, "b", 0.0)) == '<tracks coords="1.0 1 500 556">the dog</tracks>'


def test_no_tracks():
    assert write("dog", []) == "No tracks available."


# Writing: the rules


def test_nothing_visible_is_no_tracks():
    assert write("dog", [TrackFrame(0.0, {}), TrackFrame(0.5, {})]) == "No tracks available."
    text = write("dog", [TrackFrame(0.0, {}), TrackFrame(0.5, {"a": (0, 0)})])
    assert text == '<tracks coords="0.5 1 000 000">dog</tracks>'


def test_alt():
    text = write("dog", [TrackFrame(0.5, {"a": (0, 0)})], alt="a dog")
    assert text == '<tracks alt="a dog" coords="0.5 1 000 000">dog</tracks>'


def test_numbers_follow_the_first_appearance_not_the_position_or_the_name():
    """Unsorted times, three objects that cross: "z" is left at first, "a" and "m" come later."""
    frames = [
        TrackFrame(1.0, {"a": (0.1, 0.1), "z": (0.9, 0.1), "m": (0.1, 0.05)}),
        TrackFrame(0.0, {"z": (0.5, 0.5)}),
        TrackFrame(2.0, {"a": (0.0, 0.0)}),
        TrackFrame(3.0, {"m": (0.3, 0.3), "z": (0.2, 0.2)}),
    ]
    coords = "0.0 1 500 500;1.0 1 900 100 2 100 050 3 100 100;2.0 3 000 000;3.0 1 200 200 2 300 300"
    assert write("x", frames) == f'<tracks coords="{coords}">x</tracks>'


def test_first_appearances_are_ordered_as_written():
    """0.1004 and 0.1001 are both written 100, so y decides, although x before rounding has the other order."""
    assert 'coords="0.0 1 100 100 2 100 300"' in write("x", [TrackFrame(0, {"a": (0.1001, 0.3), "b": (0.1004, 0.1)})])


def test_coordinates_are_clipped_independently():
    text = write("x", [TrackFrame(0, {"a": (0.5, 1.2), "b": (-0.1, -0.1), "c": (1.2, 0.5)})])
    assert 'coords="0.0 1 000 000 2 500 1000 3 1000 500"' in text


def test_frames_with_the_same_tenth_are_merged():
    text = write("x", [TrackFrame(0.5, {"b": (0.2, 0)}), TrackFrame(0.52, {"a": (0.1, 0), "b": (0.2001, 0)})])
    assert 'coords="0.5 1 100 000 2 200 000"' in text


@pytest.mark.parametrize(
    "frames, message",
    [
        ([TrackFrame(0.5, {"a": (0, 0)}), TrackFrame(0.52, {"a": (0.1, 0)})], "object 'a' has two positions at 0.5 s"),
        ([TrackFrame(-0.5, {"a": (0, 0)})], "at least 0 s"),
        ([TrackFrame(0.5, {"a": (float("nan"), 0)})], "not a number"),
    ],
)
def test_tracks_that_cannot_be_written_raise(frames, message):
    with pytest.raises(ValueError, match=message):
        write("x", frames)


@pytest.mark.parametrize("frames", [[], DOGS])
def test_labels_and_versions_are_checked_also_without_tracks(frames):
    with pytest.raises(ValueError, match="could not be read back"):
        write("a</tracks>b", frames)
    with pytest.raises(ValueError, match="points format 'html' is not one of"):
        write_tracks("x", frames, version="html")


# Selecting frames


def test_start_and_end():
    here = (0.0, 0.0)
    frames = [
        TrackFrame(1.5, {"a": here}),
        TrackFrame(0.0, {"a": here, "b": here}),
        TrackFrame(0.5, {"a": here, "once": here}),
        TrackFrame(0.7, {}),
        TrackFrame(1.0, {"a": here}),
        TrackFrame(1.0, {"b": here}),
    ]
    kept = [(frame.time, sorted(frame.points)) for frame in start_and_end(frames)]
    assert kept == [(0.0, ["a", "b"]), (0.5, ["once"]), (1.0, ["b"]), (1.5, ["a"])]


def test_frames_with_the_same_time_are_merged():
    frames = [TrackFrame(0.0, {"a": (0, 0)}), TrackFrame(0.0, {"b": (1, 1)})]
    assert start_and_end(frames) == (TrackFrame(0.0, {"a": (0, 0), "b": (1, 1)}),)
    with pytest.raises(ValueError, match="object 'a' has two positions"):
        start_and_end([*frames, TrackFrame(0.0, {"a": (1, 1)})])


def test_from_query_is_strictly_later_and_of_one_object():
    assert from_query(DOGS, "a", 0.0) == (
        TrackFrame(0.5, {"a": (0.172, 0.139)}),
        TrackFrame(1.0, {"a": (0.188, 0.139)}),
    )
    assert from_query(DOGS, "c", 1.0) == ()
    assert from_query(DOGS, "d", 0.0) == ()


# Write, then parse


def test_the_first_point_of_a_number_in_a_frame_counts():
    frames = parse('<tracks coords="0.5 1 100 100 1 200 200;0.0 2 300 300">x</tracks>')
    assert frames == (TrackFrame(0.0, {"2": (0.3, 0.3)}), TrackFrame(0.5, {"1": (0.1, 0.1)}))


positions = st.tuples(st.floats(-0.1, 1.1), st.floats(-0.1, 1.1))
objects = st.dictionaries(st.sampled_from("abcde"), positions, max_size=5)  # a missing object can reappear


@given(st.dictionaries(st.integers(0, 40), objects, max_size=8), st.sampled_from(["html-v1", "html-v2"]))
@settings(max_examples=50, deadline=None)
def test_written_tracks_are_parsed_back(found, version):
    text = write_tracks("x", [TrackFrame(tick / 8, points) for tick, points in found.items()], version=version)
    rounded = {
        round(tick / 8, 1): {
            name: tuple(round(1000 * min(max(v, 0), 1)) / 1000 for v in position) for name, position in points.items()
        }
        for tick, points in sorted(found.items())
        if points
    }
    if not rounded:
        assert text == "No tracks available."
        return
    names = list(dict.fromkeys(name for points in rounded.values() for name in sorted(points, key=points.get)))
    assert parse(text) == tuple(
        TrackFrame(time, {str(names.index(name) + 1): position for name, position in points.items()})
        for time, points in rounded.items()
    )


def test_a_parsed_track_is_written_as_it_was():
    text = write("the dogs", DOGS)
    assert write("the dogs", parse(text)) == text
