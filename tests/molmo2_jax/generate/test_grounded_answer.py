"""Answers as points, tracks and pictures."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.media.location import InMemory, Location
from data_pipelines.media.medium import FramesMedium, open_image, open_video
from molmo2_jax.generate.grounded_answer import MAX_FRAMES, Answer, Point, Track


@pytest.fixture
def frames():
    pixels = np.full((4, 100, 200, 3), 90, np.uint8)
    return (FramesMedium(InMemory("frames", b""), pixels, (0.0, 0.5, 1.0, 1.5)),)


@pytest.fixture
def images(tmp_path):
    for number, size in enumerate([(200, 100), (50, 80)], start=1):
        Image.new("RGB", size, (90, 90, 90)).save(tmp_path / f"{number}.png")
    return tuple(open_image(Location.of(tmp_path / f"{number}.png")) for number in (1, 2))


def changed(picture):
    """Where a gray picture was drawn on, as (x, y)."""
    return {(int(x), int(y)) for y, x in np.argwhere((np.asarray(picture) != 90).any(-1))}


def test_points_of_a_video_are_pixels_and_seconds(frames):
    cat, dog = "0.5 1 100 200;1.5 2 500 500", "0.0 1 000 1000"
    text = f'Here: <points coords="{cat}">cat</points> and <points coords="{dog}">dog</points>'
    assert Answer("", text, frames).points == (
        Point(0.5, 20.0, 20.0, 1, "cat", None),
        Point(1.5, 100.0, 50.0, 2, "cat", None),
        Point(0.0, 0.0, 100.0, 1, "dog", None),
    )
    assert Answer("", text, frames).tracks == ()


def test_points_of_images_are_pixels_of_the_image_they_name(images):
    answer = Answer("", '<points coords="1 1 100 200;2 2 500 500;3 3 500 500">cat</points>', images)
    assert answer.points == (Point(None, 20.0, 20.0, 1, "cat", 1), Point(None, 25.0, 40.0, 2, "cat", 2))


def test_tracks_are_objects_in_order_of_time(frames):
    text = '<tracks coords="1.0 1 500 500 2 100 100;0.0 1 000 000">dogs</tracks>'
    first, second = Answer("", text, frames).tracks
    assert first == Track("dogs", 1, (Point(0.0, 0.0, 0.0, 1, "dogs", None), Point(1.0, 100.0, 50.0, 1, "dogs", None)))
    assert [point.object for point in second.points] == [2]


@pytest.mark.parametrize("text", ["", "no tag", "<points", '<points coords="x">', '<points coords="9 9">a</points>'])
def test_an_answer_without_points_has_none(frames, text):
    answer = Answer("", text, frames)
    assert answer.points == () and answer.tracks == ()
    assert answer.draw().size == (200, 100)


def test_points_are_drawn_where_they_are(images, tmp_path):
    answer = Answer("", '<points coords="1 1 250 500">x</points>', images)
    picture = answer.draw(tmp_path / "out.png")
    assert picture.size == (400, 100)  # two cells of the largest size
    on_first = {(x, y) for x, y in changed(picture) if x < 200}
    assert {(50 - 4, 50), (50 + 4, 50), (50, 50 + 4)} <= on_first
    assert not {(x, y) for x, y in on_first if x < 40 or (x < 60 and not 40 <= y <= 60)}
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(picture))


def test_a_video_shows_the_frames_that_are_pointed_at(frames):
    answer = Answer("", '<points coords="0.5 1 250 500;1.5 2 250 500">x</points>', frames)
    assert answer.draw().size == (400, 100)
    many = ";".join(f"{t / 10:.1f} 1 500 500" for t in range(40))
    assert answer.__class__("", f'<tracks coords="{many}">x</tracks>', frames).draw().size == (
        800,
        100 * MAX_FRAMES // 4,
    )


def test_frames_of_a_clip_are_those_of_its_own_time(street_video):
    clip, whole = (open_video(Location.of(street_video), part) for part in ((3.0, 8.0), None))
    answer, same = (
        Answer("", f'<points coords="{time} 1 672 471">car</points>', (medium,)).draw()
        for time, medium in (("4.0", clip), ("7.0", whole))
    )
    assert answer.size == (640, 272)
    np.testing.assert_array_equal(np.asarray(answer)[60:], np.asarray(same)[60:])  # all but the captions


def test_an_answer_about_text_has_nothing_to_draw_on():
    with pytest.raises(ValueError, match="no image or video"):
        Answer("", "hi", ()).draw()
