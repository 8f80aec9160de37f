from molmo2_jax.viewer import player_data
from molmo2_jax.viewer.answers import Answer
from molmo2_jax.viewer.row_reader import Picture, read_row
from tests.molmo2_jax.viewer import rows as by_hand

FRAMES = [Picture(n, time, f"{time} s") for n, time in enumerate([0.0, 0.5, 1.0])]
IMAGES = [Picture(n, n + 1, f"image {n + 1}") for n in range(2)]


def test_a_point_is_drawn_on_the_picture_of_its_key():
    assert [player_data.find_picture(key, FRAMES) for key in (0.0, 0.5, 0.45, 0.55, 1.0, 0.3, 9.0)] == [
        0,
        1,
        1,
        1,
        2,
        -1,
        -1,
    ]
    assert [player_data.find_picture(key, IMAGES) for key in (1, 2, 3)] == [0, 1, -1]
    # An image number is not a time.
    assert player_data.find_picture(1, FRAMES) == player_data.find_picture(1.0, IMAGES) == -1
    assert player_data.find_picture(0.0, [Picture(0, None, "frame 1")]) == -1
    close = [Picture(0, 0.5, "0.5 s"), Picture(1, 0.54, "0.54 s")]
    assert [player_data.find_picture(key, close) for key in (0.5, 0.54)] == [0, 1]  # the nearest


def test_tags_have_their_points_on_pictures():
    two = '<points coords="0.5 1 250 500;9.0 2 100 100">cars</points>'
    assert player_data.answer_tags(f'Two {two} and <tracks alt="a b" coords="1.0 3 0010 1000">x</tracks>', FRAMES) == [
        {"kind": "points", "label": "cars", "points": [[1, 1, 0.25, 0.5, 0.5], [2, -1, 0.1, 0.1, 9.0]]},
        {"kind": "tracks", "label": "x (a b)", "points": [[3, 2, 0.01, 1.0, 1.0]]},
    ]


def test_the_player_gets_pictures_tags_and_subtitles(tokenizer):
    rows, _ = by_hand.story(tokenizer)
    clip = player_data.example_data(read_row(rows[0], tokenizer)[0])
    assert clip["timed"] and [picture["key"] for picture in clip["pictures"]] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [(tag["branch"], tag["kind"], len(tag["points"])) for tag in clip["tags"]] == [
        (1, "tracks", 12),
        (2, "points", 2),
    ]
    assert clip["subtitles"] == [[0.0, 0.9, "Look at the ball."], [1.2, 2.2, "There <b>it</b> goes."]]
    photo, pair = (player_data.example_data(example) for example in read_row(rows[1], tokenizer))
    assert not photo["timed"] and photo["pictures"] == [
        {"crop": 0, "key": 1, "caption": "image 1", "size": (644, 378), "detail_crops": [[1, 0, 0], [2, 266, 0]]}
    ]
    assert [point[:2] for point in pair["tags"][0]["points"]] == [[1, 0], [2, 1]]


def test_an_answer_card_has_both_answers():
    card = player_data.answer_card(Answer("Q", "1 car <b>", "2 car <b>"), (0, 1), FRAMES)
    assert card["annotated"]["parts"] == [["1", True], [" car <b>", False]]
    assert card["generated"]["parts"] == [["2", True], [" car <b>", False]]
    assert card["asked_in"] == (0, 1) and not card["equal"]
