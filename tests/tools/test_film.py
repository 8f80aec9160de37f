from molmo2_jax.tools import film
from molmo2_jax.tools.compare import Answer
from molmo2_jax.tools.row_view import View, read_row
from tests.tools import rows as by_hand

FRAMES = [View(n, time, f"{time} s") for n, time in enumerate([0.0, 0.5, 1.0])]
IMAGES = [View(n, n + 1, f"image {n + 1}") for n in range(2)]


def test_a_point_goes_to_the_view_its_key_names():
    assert [film.view_of(key, FRAMES) for key in (0.0, 0.5, 0.45, 0.55, 1.0, 0.3, 9.0)] == [0, 1, 1, 1, 2, -1, -1]
    assert [film.view_of(key, IMAGES) for key in (1, 2, 3)] == [0, 1, -1]
    assert film.view_of(1, FRAMES) == film.view_of(1.0, IMAGES) == -1  # an image's number is no time
    assert film.view_of(0.0, [View(0, None, "frame 1")]) == -1
    close = [View(0, 0.5, "0.5 s"), View(1, 0.54, "0.54 s")]
    assert [film.view_of(key, close) for key in (0.5, 0.54)] == [0, 1]  # the nearest


def test_tags_have_their_points_on_views():
    two = '<points coords="0.5 1 250 500;9.0 2 100 100">cars</points>'
    assert film.tags(f'Two {two} and <tracks alt="a b" coords="1.0 3 0010 1000">x</tracks>', FRAMES) == [
        {"kind": "points", "label": "cars", "points": [[1, 1, 0.25, 0.5, 0.5], [2, -1, 0.1, 0.1, 9.0]]},
        {"kind": "tracks", "label": "x (a b)", "points": [[3, 2, 0.01, 1.0, 1.0]]},
    ]


def test_an_example_is_a_film(tokenizer):
    rows, _ = by_hand.story(tokenizer)
    clip = film.film(read_row(rows[0], tokenizer)[0])
    assert clip["timed"] and [view["key"] for view in clip["views"]] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [(tag["branch"], tag["kind"], len(tag["points"])) for tag in clip["tags"]] == [
        (1, "tracks", 12),
        (2, "points", 2),
    ]
    assert clip["subtitles"] == [[0.0, 0.9, "Look at the ball."], [1.2, 2.2, "There <b>it</b> goes."]]
    photo, pair = (film.film(example) for example in read_row(rows[1], tokenizer))
    assert not photo["timed"] and photo["views"] == [
        {"crop": 0, "key": 1, "caption": "image 1", "size": (644, 378), "tiles": [[1, 0, 0], [2, 266, 0]]}
    ]
    assert [point[:2] for point in pair["tags"][0]["points"]] == [[1, 0], [2, 1]]


def test_both_answers_stand_side_by_side():
    card = film.answer_card(Answer("Q", "1 car <b>", "2 car <b>"), (0, 1), FRAMES)
    assert card["annotated"]["parts"] == [["1", True], [" car <b>", False]]
    assert card["generated"]["parts"] == [["2", True], [" car <b>", False]]
    assert card["place"] == (0, 1) and not card["equal"]
