"""Point answers: exactly the texts of the public reference, and parsed back."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.text.point_tag import IndexedPoint, PointTag
from data_pipelines.text.points import Point, parse_points, write_points

write = functools.partial(write_points, version="html-v2")


def image(*points):
    return [Point(1, x, y) for x, y in points]


CATS = [Point(2.5, 0.5, 0.5), Point(0.0, 0.1, 0.2), Point(0.0, 0.01, 0.02)]
CATS_TAG = '<points coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>'


# Writing: outputs of the public reference


def test_image_pointing():
    text = write("dogs", image((0.1, 0.2), (1, 0), (0.05, 1)))
    assert text == '<points coords="1 1 050 1000 2 100 200 3 1000 000">dogs</points>'


def test_image_counting():
    text = write("dogs", image((0.1, 0.2), (0.05, 1)), mode="point_count")
    assert text == 'Counting the <points coords="1 1 050 1000 2 100 200">dogs</points> shows a total of 2.'


def test_inline_with_alt():
    text = write("inline", image((0.5, 0.5)), alt="alt text")
    assert text == '<points alt="alt text" coords="1 1 500 500">inline</points>'


def test_multi_image():
    points = [Point(3, 0.5, 0.5), Point(1, 0.1, 0.2), Point(1, 0.01, 0.02)]
    tag = '<points coords="1 1 010 020 2 100 200;3 3 500 500">cat</points>'
    assert write("cat", points, mode="point_count") == f"Counting the {tag} shows a total of 3."


def test_video():
    assert write("cat", CATS) == CATS_TAG


def test_query_point():
    assert write("the dog", [Point(0.0, 0.469, 0.556)]) == '<points coords="0.0 1 469 556">the dog</points>'


def test_near_edge():
    text = write("label", image((0.99, 0.8)), mode="point_count")
    assert text == 'Counting the <points coords="1 1 990 800">label</points> shows a total of 1.'


def test_the_first_version_separates_frames_by_tabs():
    v1 = functools.partial(write_points, version="html-v1")
    points = [Point(3, 0.5, 0.5), Point(1, 0.1, 0.2), Point(1, 0.01, 0.02)]
    tag = '<points coords="1 1 010 020 2 100 200\t3 3 500 500">cat</points>'
    assert v1("cat", points, mode="point_count") == f"Counting the {tag} shows a total of 3."
    assert v1("cat", CATS) == '<points coords="0.0 1 010 020 2 100 200\t2.5 3 500 500">cat</points>'
    one = v1("label", image((0.99, 0.8)), mode="point_count")
    assert one == 'Counting the <points coords="1 1 990 800">label</points> shows a total of 1.'


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
    assert write("cat", CATS, mode=mode) == expected
    assert write("cat", [], mode=mode) == "There are none."


def test_labels_may_contain_braces():
    assert write("{count}", image((0, 0)), mode="count_point").endswith(">{count}</points>.")


@pytest.mark.parametrize(
    "x, y, expected",
    [
        (1.2, 0.5, "1000 500"),
        (0.5, 1.2, "500 1000"),
        (-0.1, -0.1, "000 000"),
        (-0.1, 1.1, "000 1000"),
        (0.0625, 0.1875, "062 188"),  # 62.5 and 187.5 are rounded to even
        (0.9996, 0.0004, "1000 000"),
    ],
)
def test_coordinates_are_clipped_independently_and_rounded(x, y, expected):
    assert write("a", image((x, y))) == f'<points coords="1 1 {expected}">a</points>'


def test_points_are_sorted_as_written():
    """0.1004 and 0.1001 are both written 100, so y decides, although x before rounding has the other order."""
    assert 'coords="1 1 100 100 2 100 300"' in write("a", image((0.1001, 0.3), (0.1004, 0.1)))


@pytest.mark.parametrize("time, key", [(0.0, "0.0"), (0.54, "0.5"), (3.0, "3.0"), (12.25, "12.2"), (-1e-17, "0.0")])
def test_times_are_written_in_tenths(time, key):
    assert f'coords="{key} 1 ' in write("a", [Point(time, 0.5, 0.5)])


def test_times_are_ordered_as_numbers():
    text = write("a", [Point(10.0, 0, 0), Point(9.5, 0, 0)])
    assert 'coords="9.5 1 000 000;10.0 2 000 000"' in text


def test_times_with_the_same_tenth_share_a_frame():
    text = write("a", [Point(0.5, 0.9, 0), Point(0.5 + 1e-9, 0.1, 0)])
    assert 'coords="0.5 1 100 000 2 900 000"' in text


def test_numpy_numbers_are_accepted():
    assert write("a", [Point(np.float64(2.0), np.float32(0.5), 0)]) == '<points coords="2.0 1 500 000">a</points>'
    assert write("a", [Point(np.int64(2), 0, 0)]) == '<points coords="2 1 000 000">a</points>'


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
def test_invalid_points_raise(points, message):
    with pytest.raises(ValueError, match=message):
        write("a", points)


def test_unknown_mode_raises():
    with pytest.raises(ValueError, match="mode 'video_point' is not one of"):
        write("a", CATS, mode="video_point")


@pytest.mark.parametrize("points", [[], CATS])
def test_unknown_version_raises(points):
    with pytest.raises(ValueError, match="points format 'html' is not one of"):
        write_points("a", points, version="html")
    with pytest.raises(TypeError, match="version"):
        write_points("a", points)


@pytest.mark.parametrize("label", ["a</points>b", '<points coords="1 1 100 100">', "x<tracks"])
@pytest.mark.parametrize("points", [[], CATS])
def test_labels_that_could_not_be_read_back_raise(label, points):
    with pytest.raises(ValueError, match=r"label .*could not be read back"):
        write(label, points)


@pytest.mark.parametrize("alt", ['12" record', "two\nlines"])
def test_alts_that_could_not_be_read_back_raise(alt):
    with pytest.raises(ValueError, match=r"alt .*could not be read back"):
        write("a", CATS, alt=alt)


# Reading


def test_answers_of_both_versions_are_parsed():
    for version in ("html-v1", "html-v2"):
        (tag,) = parse_points(write_points("cat", CATS, version=version, mode="point_count"))
        assert [(p.index, p.key, p.x, p.y) for p in tag.points] == [
            (1, 0.0, 0.01, 0.02),
            (2, 0.0, 0.1, 0.2),
            (3, 2.5, 0.5, 0.5),
        ]


def test_older_formats_are_parsed_if_there_is_no_tag():
    old = '<point x="5.0" y="100.0" alt="a dog">dog</point>'
    assert parse_points(old) == [PointTag("points", "dog", "a dog", (IndexedPoint(1, 1, 0.05, 1.0),))]
    (tag,) = parse_points(f'{old} <points coords="1 1 500 500">cat</points>')
    assert tag.label == "cat"


LONG = "1" * 5000  # more digits than int() accepts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "There are none.",
        "No tracks available.",
        "<points>x</points>",
        LONG,
        f"{LONG} 100 200",
        f'<point x{LONG}="1" y{LONG}="2"/>',
        f"time 0.5\n{{{LONG}: [1.0, 2.0]}}",
    ],
)
def test_texts_without_points(text):
    assert parse_points(text) == []


def test_too_long_numbers_are_skipped():
    (tag,) = parse_points(f'<points coords="1 {LONG} 100 200;{LONG} 1 100 200;1 7 100 200">a</points>')
    assert [p.index for p in tag.points] == [7]


# Write, then parse

labels = st.text(max_size=20).filter(lambda s: "<points" not in s and "<tracks" not in s and "</" not in s)
alts = st.none() | st.text(max_size=20).filter(lambda s: '"' not in s and "\n" not in s)
fractions = st.floats(0, 1)


@given(
    st.lists(st.tuples(st.integers(0, 50), fractions, fractions), min_size=1, max_size=12),
    labels,
    alts,
    st.sampled_from(["point", "point_count", "count_point"]),
    st.booleans(),
    st.sampled_from(["html-v1", "html-v2"]),
)
@settings(max_examples=50, deadline=None)
def test_written_points_are_parsed_back(coordinates, label, alt, mode, video, version):
    points = [Point(key / 2 if video else key + 1, x, y) for key, x, y in coordinates]
    (tag,) = parse_points(write_points(label, points, version=version, mode=mode, alt=alt))
    assert (tag.kind, tag.label, tag.alt) == ("points", label, alt)
    assert [p.index for p in tag.points] == list(range(1, len(points) + 1))
    rounded = sorted((p.key, round(1000 * p.x), round(1000 * p.y)) for p in points)
    assert [(p.key, round(1000 * p.x), round(1000 * p.y)) for p in tag.points] == rounded
    assert {type(p.key) for p in tag.points} == {float if video else int}


@pytest.mark.parametrize(
    "label", ['5" disk', "a < b", "x > y", "a & b", "two\nlines", " spaced ", "</b>", "", "naïve 猫"]
)
def test_unusual_labels_are_parsed_back(label):
    (tag,) = parse_points(write(label, CATS, alt="a <b> & c"))
    assert (tag.label, tag.alt) == (label, "a <b> & c")
