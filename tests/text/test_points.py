"""Point answers, letter for letter as the public reference writes them, and read back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmo2_jax.text.points import IndexedPoint, Point, PointTag, parse_points, write_points


def image(*places):
    return [Point(1, x, y) for x, y in places]


CATS = [Point(2.5, 0.5, 0.5), Point(0.0, 0.1, 0.2), Point(0.0, 0.01, 0.02)]
CATS_TAG = '<points coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>'


# Writing: outputs of the public reference


def test_image_pointing():
    text = write_points("dogs", image((0.1, 0.2), (1, 0), (0.05, 1)))
    assert text == '<points coords="1 1 050 1000 2 100 200 3 1000 000">dogs</points>'


def test_image_counting():
    text = write_points("dogs", image((0.1, 0.2), (0.05, 1)), mode="point_count")
    assert text == 'Counting the <points coords="1 1 050 1000 2 100 200">dogs</points> shows a total of 2.'


def test_inline_with_alt():
    text = write_points("inline", image((0.5, 0.5)), alt="alt text")
    assert text == '<points alt="alt text" coords="1 1 500 500">inline</points>'


def test_multi_image():
    points = [Point(3, 0.5, 0.5), Point(1, 0.1, 0.2), Point(1, 0.01, 0.02)]
    tag = '<points coords="1 1 010 020 2 100 200;3 3 500 500">cat</points>'
    assert write_points("cat", points, mode="point_count") == f"Counting the {tag} shows a total of 3."


def test_video():
    assert write_points("cat", CATS) == CATS_TAG


def test_query_point():
    assert write_points("the dog", [Point(0.0, 0.469, 0.556)]) == '<points coords="0.0 1 469 556">the dog</points>'


def test_near_edge():
    text = write_points("label", image((0.99, 0.8)), mode="point_count")
    assert text == 'Counting the <points coords="1 1 990 800">label</points> shows a total of 1.'


# Writing: the rules


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("point", CATS_TAG),
        ("point_count", f"Counting the {CATS_TAG} shows a total of 3."),
        ("count_point", f"There are 3 {CATS_TAG}."),
        ("count", "3"),
    ],
)
def test_modes(mode, expected):
    assert write_points("cat", CATS, mode=mode) == expected
    assert write_points("cat", [], mode=mode) == "There are none."


def test_labels_with_braces_are_labels():
    assert write_points("{count}", image((0, 0)), mode="count_point").endswith(">{count}</points>.")


@pytest.mark.parametrize(
    "x, y, expected",
    [
        (1.2, 0.5, "1000 500"),
        (0.5, 1.2, "500 1000"),
        (-0.1, -0.1, "000 000"),
        (-0.1, 1.1, "000 1000"),
        (0.0625, 0.1875, "062 188"),  # halves go to the even number: 62.5, 187.5
        (0.9996, 0.0004, "1000 000"),
    ],
)
def test_coordinates_are_clamped_each_by_itself_and_rounded(x, y, expected):
    assert write_points("a", image((x, y))) == f'<points coords="1 1 {expected}">a</points>'


def test_points_are_sorted_as_written():
    """0.1004 and 0.1001 are both 100: y decides, although x would have ordered them the other way."""
    assert 'coords="1 1 100 100 2 100 300"' in write_points("a", image((0.1001, 0.3), (0.1004, 0.1)))


@pytest.mark.parametrize("time, key", [(0.0, "0.0"), (0.54, "0.5"), (3.0, "3.0"), (12.25, "12.2"), (-1e-17, "0.0")])
def test_times_are_written_in_tenths(time, key):
    assert f'coords="{key} 1 ' in write_points("a", [Point(time, 0.5, 0.5)])


def test_times_are_ordered_as_numbers():
    text = write_points("a", [Point(10.0, 0, 0), Point(9.5, 0, 0)])
    assert 'coords="9.5 1 000 000;10.0 2 000 000"' in text


def test_times_of_one_tenth_are_one_frame():
    text = write_points("a", [Point(0.5, 0.9, 0), Point(0.5 + 1e-9, 0.1, 0)])
    assert 'coords="0.5 1 100 000 2 900 000"' in text


def test_numpy_numbers_are_numbers():
    assert (
        write_points("a", [Point(np.float64(2.0), np.float32(0.5), 0)]) == '<points coords="2.0 1 500 000">a</points>'
    )
    assert write_points("a", [Point(np.int64(2), 0, 0)]) == '<points coords="2 1 000 000">a</points>'


@pytest.mark.parametrize(
    "points, message",
    [
        ([Point(0, 0, 0)], "numbered from 1"),
        ([Point(-0.5, 0, 0)], "at least 0 s"),
        ([Point(float("nan"), 0, 0)], "at least 0 s"),
        ([Point(1, float("nan"), 0)], "not a number"),
        ([Point(1, 0, float("inf"))], "not a number"),
        ([Point(1, 0, 0), Point(0.5, 0, 0)], "'a' mix seconds and image numbers"),
    ],
)
def test_points_that_are_no_place_raise(points, message):
    with pytest.raises(ValueError, match=message):
        write_points("a", points)


def test_unknown_mode_raises():
    with pytest.raises(ValueError, match="mode 'video_point' is not one of"):
        write_points("a", CATS, mode="video_point")


@pytest.mark.parametrize("label", ["a</points>b", '<points coords="1 1 100 100">', "x<tracks"])
def test_labels_that_could_not_be_read_back_raise(label):
    with pytest.raises(ValueError, match=r"label .*could not be read back"):
        write_points(label, CATS)


@pytest.mark.parametrize("alt", ['12" record', "two\nlines"])
def test_alts_that_could_not_be_read_back_raise(alt):
    with pytest.raises(ValueError, match=r"alt .*could not be read back"):
        write_points("a", CATS, alt=alt)


# Reading


def test_parse_image_points():
    (tag,) = parse_points('Counting the <points coords="1 1 050 1000 2 100 200">dogs</points> shows a total of 2.')
    assert tag == PointTag("points", "dogs", None, (IndexedPoint(1, 1, 0.05, 1.0), IndexedPoint(2, 1, 0.1, 0.2)))
    assert isinstance(tag.points[0].key, int)


def test_parse_video_points():
    (tag,) = parse_points(CATS_TAG)
    assert [(p.index, p.key, p.x, p.y) for p in tag.points] == [
        (1, 0.0, 0.01, 0.02),
        (2, 0.0, 0.1, 0.2),
        (3, 2.5, 0.5, 0.5),
    ]
    assert all(isinstance(p.key, float) for p in tag.points)


def test_parse_tracks():
    (tag,) = parse_points(
        '<tracks coords="0.0 1 156 139 2 469 556;0.5 1 172 139;1.0 1 188 139 2 500 556 3 002 003">the dogs</tracks>'
    )
    assert (tag.kind, tag.label, tag.alt) == ("tracks", "the dogs", None)
    assert [(p.key, p.index) for p in tag.points] == [(0.0, 1), (0.0, 2), (0.5, 1), (1.0, 1), (1.0, 2), (1.0, 3)]
    assert tag.points[-1] == IndexedPoint(3, 1.0, 0.002, 0.003)


def test_parse_several_tags_and_alt():
    tags = parse_points(
        'a <points alt="x > y" coords="1 1 500 500">b</points>, <points coords="1 1 000 000">c</points>'
    )
    assert [(tag.label, tag.alt, len(tag.points)) for tag in tags] == [("b", "x > y", 1), ("c", None, 1)]


def test_parse_first_format():
    """html-v1 put tabs between frames; the pre-training stage of the reference writes it."""
    (tag,) = parse_points('<points coords="1 1 010 020\t3 2 500 500">cat</points>')
    assert [(p.key, p.index) for p in tag.points] == [(1, 1), (3, 2)]


def test_parse_cut_answers():
    (tag,) = parse_points('<points coords="1 1 500 500">the do')
    assert tag == PointTag("points", "", None, (IndexedPoint(1, 1, 0.5, 0.5),))
    first, second = parse_points('<points coords="1 1 500 500">a <points coords="1 1 100 100">b</points>')
    assert (first.label, second.label) == ("", "b")
    assert parse_points('<points coords="1 1 500 50') == []


@pytest.mark.parametrize(
    "text", ["", "There are none.", "<points>x</points>", '<point x="1" y="2">', '<track coords="1 1 100 100">']
)
def test_parse_nothing(text):
    assert parse_points(text) == []


def test_parse_passes_over_what_is_no_point():
    (tag,) = parse_points(
        '<points coords="1 1 50 500 2 1001 000 3 00100 200 4 300 400;.5 5 100 100;2.5.1 6 1 1">a</points>'
    )
    assert tag.points == (IndexedPoint(4, 1, 0.3, 0.4),)


# There and back

labels = st.text(max_size=20).filter(lambda s: "<points" not in s and "<tracks" not in s and "</" not in s)
alts = st.none() | st.text(max_size=20).filter(lambda s: '"' not in s and "\n" not in s)
fractions = st.floats(0, 1)


@given(
    st.lists(st.tuples(st.integers(0, 50), fractions, fractions), min_size=1, max_size=12),
    labels,
    alts,
    st.sampled_from(["point", "point_count", "count_point"]),
    st.booleans(),
)
def test_written_points_are_read_back(places, label, alt, mode, video):
    points = [Point(key / 2 if video else key + 1, x, y) for key, x, y in places]
    (tag,) = parse_points(write_points(label, points, mode=mode, alt=alt))
    assert (tag.kind, tag.label, tag.alt) == ("points", label, alt)
    assert [p.index for p in tag.points] == list(range(1, len(points) + 1))
    rounded = sorted((p.key, round(1000 * p.x), round(1000 * p.y)) for p in points)
    assert [(p.key, round(1000 * p.x), round(1000 * p.y)) for p in tag.points] == rounded
    assert {type(p.key) for p in tag.points} == {float if video else int}


@given(st.text(alphabet='<>/points tracks="; .019\n', max_size=80))
def test_any_text_can_be_parsed(text):
    for tag in parse_points(f'<points coords="1 1 5{text}'):
        assert all(0 <= p.x <= 1 and 0 <= p.y <= 1 for p in tag.points)


@pytest.mark.parametrize(
    "label", ['5" disk', "a < b", "x > y", "a & b", "two\nlines", " spaced ", "</b>", "", "naïve 猫"]
)
def test_odd_labels_are_read_back(label):
    (tag,) = parse_points(write_points(label, CATS, alt="a <b> & c"))
    assert (tag.label, tag.alt) == (label, "a <b> & c")
