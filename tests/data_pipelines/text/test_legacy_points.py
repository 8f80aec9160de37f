"""Point and track formats of older models."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.text.legacy_points import read_legacy
from data_pipelines.text.points import parse_points


def read(text):
    """(kind, label, alt, [(index, key, x, y), ...]) of every tag."""
    return [(t.kind, t.label, t.alt, [(p.index, p.key, p.x, p.y) for p in t.points]) for t in read_legacy(text)]


def image(*points):
    return [("points", "", None, [(index, 1, x, y) for index, (x, y) in enumerate(points, start=1)])]


def tracks(*points):
    return [("tracks", "", None, list(points))]


# Tags with attributes


def test_one_point():
    text = 'It is <point x="63.5" y=" 44" alt="a small > dog">dog</point> here, <point x="1.0" y="100.0">.</point>'
    assert read(text) == [
        ("points", "dog", "a small > dog", [(1, 1, 0.635, 0.44)]),
        ("points", ".", None, [(1, 1, 0.01, 1.0)]),
    ]


def test_many_points():
    text = 'Counting the <points x1="63.5" y1="44.5" x2="7.0" y2="8.0" alt="dogs">dogs</points> shows a total of 2.'
    assert read(text) == [("points", "dogs", "dogs", [(1, 1, 0.635, 0.445), (2, 1, 0.07, 0.08)])]


def test_points_of_a_video():
    text = "<points t1=0.5 x1=10.0 y1=20.0 x2=30.0 y2=40.0/> <points t2=12 x3=50.0 y3=60.0/>"
    assert read(text) == [
        ("points", "", None, [(1, 0.5, 0.1, 0.2), (2, 0.5, 0.3, 0.4)]),
        ("points", "", None, [(3, 12.0, 0.5, 0.6)]),
    ]
    assert isinstance(read_legacy(text)[1].points[0].key, float)


def test_a_truncated_answer_gives_its_complete_points():
    assert read('<points x1="63.5" y1="44.5" x2="7.0" y') == [("points", "", None, [(1, 1, 0.635, 0.445)])]


def test_points_outside_the_frame_are_skipped():
    assert read('<points x1="100.1" y1="44.5" x2="7.0" y2="8.0" x3="a" y3="5">a</points>') == [
        ("points", "a", None, [(2, 1, 0.07, 0.08)])
    ]


# Compact tags


def test_compact_points():
    assert read("<points dogs\t-\t1 635 445 2 070 080/>") == [
        ("points", "dogs", None, [(1, 1, 0.635, 0.445), (2, 1, 0.07, 0.08)])
    ]
    assert read("<points two dogs\tpets\t1 63.5 44.5/>") == [("points", "two dogs", "pets", [(1, 1, 0.635, 0.445)])]


def test_compact_points_of_a_video():
    text = 'The "cats" are located at: <points 0.5\t1 10.0 20.0 2 30.0 40.0/> <points 1.0 3 50.0 60.0 />.'
    assert read(text) == [
        ("points", "", None, [(1, 0.5, 0.1, 0.2), (2, 0.5, 0.3, 0.4)]),
        ("points", "", None, [(3, 1.0, 0.5, 0.6)]),
    ]


# Other formats that are marked as points


def test_clicks():
    assert read("Click(63.5, 44.5) and Click(7.0,8.0)") == image((0.635, 0.445), (0.07, 0.08))


def test_frames_of_tracks():
    text = "time 0.50\n{0: [34.0, 63.0], 1: [72.0, 49.0]}\ntime 1.00\n{0: [35.0, 64.0], 1: [1.0, 2.0, yes]}"
    assert read(text) == tracks((0, 0.5, 0.34, 0.63), (1, 0.5, 0.72, 0.49), (0, 1.0, 0.35, 0.64))


def test_ends_of_tracks_are_read_frame_by_frame():
    text = "0: ([34.0, 63.0, 0.50], [35.0, 64.0, 1.00])\n1: ([72.0, 49.0, 0.50], [73.0, 50.0, 1.50])"
    assert read(text) == tracks((0, 0.5, 0.34, 0.63), (1, 0.5, 0.72, 0.49), (0, 1.0, 0.35, 0.64), (1, 1.5, 0.73, 0.5))


# Bare numbers


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1 635 445 2 070 080", image((0.635, 0.445), (0.07, 0.08))),
        ("1 63.5 44.5\n2 7.0 8.0", image((0.635, 0.445), (0.07, 0.08))),
        ("(63.5, 44.5), (7.0, 8.0).", image((0.635, 0.445), (0.07, 0.08))),
        ("p=635,445", image((0.635, 0.445))),
        ("1 = 635, 445; 2 = 070, 080", image((0.635, 0.445), (0.07, 0.08))),
        ("[35.0, 64.0, 0.50], [36.0, 64.0, 1.00]", tracks((0, 0.5, 0.35, 0.64), (0, 1.0, 0.36, 0.64))),
    ],
)
def test_bare_numbers_are_points_if_the_text_has_nothing_else(text, expected):
    assert read(text) == expected
    assert read(f"The answer is {text}") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "There are none.",
        "Call 1 800 555 1234, or come to (52.5, 13.4).",
        "x = 100, 200 and [1, 2, 3]",
        "<points>dogs</points>",
        "<points dogs\t-\t/>",
        "<pointer x=1 y=2/>",
        "7",
    ],
)
def test_texts_without_points(text):
    assert read(text) == []


@given(st.text(alphabet='<>/points xy1=" 05.,:;()[]{}\t\nClicktime', max_size=80))
@settings(max_examples=50)
def test_any_text_is_parsed_without_errors(text):
    for start in ("", "<points ", "time 0.5\n{", "0: (["):
        for tag in read_legacy(start + text):
            assert tag.points
            assert all(0 <= p.x <= 1 and 0 <= p.y <= 1 for p in tag.points)


STARTS = ["", "time 1", "time 1\n{", "<points", "<points a\t", "<points 2.5 ", '<points coords="', "[", "0: (["]
PARTS = [
    " ",
    "\n",
    "\t",
    "1 ",
    "a",
    " a=1",
    ' a="b"',
    '"',
    "<points ",
    "<points a\t",
    "time 1\n",
    "[ ",
    "0: ([",
    "{",
    "p =",
]


@pytest.mark.parametrize("part", PARTS)
def test_long_texts_are_read_in_linear_time(part):
    for start in STARTS:
        parse_points(start + part * (1_000_000 // len(part)))  # quadratic time would be an hour
