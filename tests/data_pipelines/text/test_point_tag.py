"""The grammar of a tag: frames, separators, rounding, and malformed tags."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.text.point_tag import IndexedPoint, PointTag, read_tags, tenths, thousandths, write_tag

CATS = '<points coords="0.0 1 010 020 2 100 200;2.5 3 500 500">cat</points>'

# Writing


@pytest.mark.parametrize("version, between", [("html-v1", "\t"), ("html-v2", ";")])
def test_versions_differ_in_what_separates_frames(version, between):
    frames = [(0.0, [(1, 10, 20), (2, 100, 200)]), (2.5, [(1, 1000, 0)])]
    text = write_tag("tracks", "cat", "a <b>", frames, version=version)
    assert text == f'<tracks alt="a <b>" coords="0.0 1 010 020 2 100 200{between}2.5 1 1000 000">cat</tracks>'
    (tag,) = read_tags(text)
    assert [(p.key, p.index, p.x, p.y) for p in tag.points] == [
        (0.0, 1, 0.01, 0.02),
        (0.0, 2, 0.1, 0.2),
        (2.5, 1, 1, 0),
    ]


def test_unknown_version_raises():
    with pytest.raises(ValueError, match=r"points format 'html-v3' is not one of \['html-v1', 'html-v2'\]"):
        write_tag("points", "cat", None, [], version="html-v3")


@given(st.floats(-2, 3))
def test_thousandths_are_rounded_and_clipped(fraction):
    written = thousandths(fraction, "p")
    assert 0 <= written <= 1000
    assert abs(written / 1000 - min(max(fraction, 0), 1)) <= 0.0005 + 1e-12


@given(st.floats(0, 1e5))
def test_tenths_are_rounded(seconds):
    assert abs(tenths(seconds, "p") - seconds) <= 0.05 + 1e-9
    assert len(str(tenths(seconds, "p")).split(".")[1]) == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
def test_invalid_times_raise(number):
    with pytest.raises(ValueError, match="here: a time must be at least 0 s"):
        tenths(number, "here")


# Reading


def test_parse_image_points():
    (tag,) = read_tags('Counting the <points coords="1 1 050 1000 2 100 200">dogs</points> shows a total of 2.')
    assert tag == PointTag("points", "dogs", None, (IndexedPoint(1, 1, 0.05, 1.0), IndexedPoint(2, 1, 0.1, 0.2)))
    assert isinstance(tag.points[0].key, int)


def test_parse_video_points():
    (tag,) = read_tags(CATS)
    assert [(p.index, p.key, p.x, p.y) for p in tag.points] == [
        (1, 0.0, 0.01, 0.02),
        (2, 0.0, 0.1, 0.2),
        (3, 2.5, 0.5, 0.5),
    ]
    assert all(isinstance(p.key, float) for p in tag.points)


def test_parse_tracks():
    (tag,) = read_tags(
        '<tracks coords="0.0 1 156 139 2 469 556;0.5 1 172 139;1.0 1 188 139 2 500 556 3 002 003">the dogs</tracks>'
    )
    assert (tag.kind, tag.label, tag.alt) == ("tracks", "the dogs", None)
    assert [(p.key, p.index) for p in tag.points] == [(0.0, 1), (0.0, 2), (0.5, 1), (1.0, 1), (1.0, 2), (1.0, 3)]
    assert tag.points[-1] == IndexedPoint(3, 1.0, 0.002, 0.003)


def test_parse_several_tags_and_alt():
    tags = read_tags('a <points alt="x > y" coords="1 1 500 500">b</points>, <points coords="1 1 000 000">c</points>')
    assert [(tag.label, tag.alt, len(tag.points)) for tag in tags] == [("b", "x > y", 1), ("c", None, 1)]


def test_parse_first_version():
    """html-v1 separates frames by tabs; the pre-training stage of the reference writes it."""
    (tag,) = read_tags('<points coords="1 1 010 020\t3 2 500 500">cat</points>')
    assert [(p.key, p.index) for p in tag.points] == [(1, 1), (3, 2)]


def test_parse_truncated_answers():
    (tag,) = read_tags('<points coords="1 1 500 500">the do')
    assert tag == PointTag("points", "", None, (IndexedPoint(1, 1, 0.5, 0.5),))
    first, second = read_tags('<points coords="1 1 500 500">a <points coords="1 1 100 100">b</points>')
    assert (first.label, second.label) == ("", "b")
    assert read_tags('<points coords="1 1 500 50') == []


@pytest.mark.parametrize(
    "text", ["", "There are none.", "<points>x</points>", '<point x="1" y="2">', '<track coords="1 1 100 100">']
)
def test_parse_nothing(text):
    assert read_tags(text) == []


def test_parse_skips_invalid_points():
    (tag,) = read_tags(
        '<points coords="1 1 50 500 2 1001 000 3 00100 200 4 300 400;.5 5 100 100;2.5.1 6 1 1">a</points>'
    )
    assert tag.points == (IndexedPoint(4, 1, 0.3, 0.4),)


@given(st.text(alphabet='<>/points tracks="; .019\n', max_size=80))
@settings(max_examples=50)
def test_any_text_is_parsed_without_errors(text):
    for tag in read_tags(f'<points coords="1 1 5{text}'):
        assert all(0 <= p.x <= 1 and 0 <= p.y <= 1 for p in tag.points)
