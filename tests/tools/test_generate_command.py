import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from molmo2_jax.data.dataset import open_dataset
from molmo2_jax.data.example import describe_prompt
from molmo2_jax.data.failure import ExampleError
from molmo2_jax.data.record import RecordError
from molmo2_jax.data.video import decode_frames
from molmo2_jax.tools import compare
from molmo2_jax.tools.generate_command import answer_prompt, answer_records, check_task, open_media, read_media
from molmo2_jax.train.config import ConfigError

ROOT = Path(__file__).parents[2]
NOTHING = {"video": None, "images": (), "clip": None}


class Echo:
    """Answers with the words it was asked, so that what reaches the model can be read."""

    def __init__(self, tokenizer, config):
        self.tok = tokenizer
        self.data = config
        self.asked = []

    def answer(self, example, *, on_text):
        self.asked.append(example)
        words = self.tok.decode(example.turns[0].user).split("user\n")[1].split("<|im_end|>")[0]
        on_text(words)
        return words


@pytest.fixture
def echo(tokenizer, data_config):
    return Echo(tokenizer, data_config())


def read_prompt(echo, text, media):
    return describe_prompt(text, open_media(**media), echo.tok, echo.data)


def load_records(path):
    dataset = open_dataset(str(path))
    return [dataset.record(item) for item in range(len(dataset))]


def show(text):
    print(text, end="")


# Flags


@pytest.mark.parametrize(
    ("video", "image", "clip", "expected"),
    [
        (None, None, None, NOTHING),
        (None, ["a.png"], None, NOTHING | {"images": ("a.png",)}),
        (None, ["a.png", "b.png"], None, NOTHING | {"images": ("a.png", "b.png")}),
        ("a.mp4", None, ["3.04", " 7"], NOTHING | {"video": "a.mp4", "clip": (3.04, 7.0)}),
    ],
)
def test_media_are_read_from_flags(video, image, clip, expected):
    assert read_media(video, image, clip) == expected


@pytest.mark.parametrize("clip", [["3"], ["a", "b"], ["1", "2", "3"], [], ["", "4"], ["1", "2s"]])
def test_a_clip_that_is_not_two_numbers_is_shown(clip):
    with pytest.raises(ConfigError, match=rf"--clip={','.join(clip)}: it takes START,END in seconds"):
        read_media("a.mp4", None, clip)


def test_media_that_exclude_each_other():
    with pytest.raises(ConfigError, match="--video or --image, not both"):
        read_media("a.mp4", ["a.png"], None)
    for image in (None, ["a.png"]):
        with pytest.raises(ConfigError, match="--clip is a part of a video: give --video"):
            read_media(None, image, ["1", "2"])


@pytest.mark.parametrize("image", [[], [""], ["a.png", ""]])
def test_an_image_without_a_name_is_shown(image):
    with pytest.raises(ConfigError, match=f"--image={','.join(image)}: it takes a file or several"):
        read_media(None, image, None)


@pytest.mark.parametrize(
    ("prompt", "config", "out", "media", "message"),
    [
        (None, False, None, {}, "either --prompt, or --config"),
        (None, False, "a.jsonl", {}, "either --prompt, or --config"),
        ("Hi.", True, "a.jsonl", {}, "either --prompt, or --config"),
        (None, True, None, {}, "--config needs --out"),
        ("Hi.", False, "a.jsonl", {}, "--out is for the answers of --config"),
        (None, True, "a.jsonl", {"video": "a.mp4"}, "--video, --image and --clip go with --prompt"),
    ],
)
def test_flags_that_name_no_single_task(prompt, config, out, media, message):
    with pytest.raises(ConfigError, match=message):
        check_task(prompt, config, out, NOTHING | media)


def test_flags_that_name_one_task():
    check_task("Hi.", False, None, NOTHING | {"images": ("a.png",)})
    check_task(None, True, "a.jsonl", NOTHING)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--video=a.mp4", "--clip=3", "--prompt=Hi."], "--clip=3: it takes START,END in seconds, such as 3.04,7.44"),
        (["--prompt=Hi.", "--top_p=0"], "--top_p is above 0, not 0"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, flags, message):
    command = [sys.executable, "-m", "molmo2_jax.cli", "generate", f"--checkpoint={tmp_path}", *flags]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"molmo2 generate: {message}\n"


# Answers


def test_a_prompt_is_answered_on_stdout(echo, capsys, street_video):
    media = NOTHING | {"video": str(street_video), "clip": (3.0, 4.0)}
    assert answer_prompt(echo, read_prompt(echo, "How many riders?", media), {"on_text": show}) == "How many riders?"
    assert capsys.readouterr().out == "How many riders?\n"
    assert echo.asked[0].media[0].times == (3.0, 3.5, 4.0)


def test_a_prompt_about_several_images_is_answered(echo, street_video, tmp_path):
    (frame,) = decode_frames(street_video, [4.0])
    names = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for name in names:
        Image.fromarray(frame).resize((300, 200)).save(name)
    example = read_prompt(echo, "Which?", read_media(None, names, None))
    assert [str(plan.location) for plan in example.media] == names
    assert answer_prompt(echo, example, {"on_text": show}) == "Which?"


def test_a_clip_outside_its_video_is_shown(echo, street_video):
    media = NOTHING | {"video": street_video}
    for clip in ((3.0, 99.0), (4.0, 3.0), (float("nan"), 3.0)):
        with pytest.raises(ExampleError, match=r"bikes.mp4: clip \[.*is empty or not inside the video"):
            read_prompt(echo, "Hi.", media | {"clip": clip})


def test_a_prompt_larger_than_a_row_says_so(tokenizer, data_config):
    with pytest.raises(RecordError, match=r"prompt: needs .* tokens .*, a row has seq_len = 8"):
        read_prompt(Echo(tokenizer, data_config(seq_len=8)), "Hi. " * 8, NOTHING)


RECORD = {
    "id": "street",
    "video": "bikes.mp4",
    "clip": [1, 2],
    "messages": [
        {
            "style": "video_point",
            "user": "Point to the car.",
            "answer": {"label": "car", "points": [{"time": 1.5, "x": 320, "y": 136}]},
        },
        {
            "style": "video_short_answer",
            "user": "Wie viele?",
            "answer": "Zwölf.",
            "then": [{"style": "user_qa", "user": "Who leads?", "answer": "Red."}],
        },
    ],
}


def test_the_first_question_of_every_branch_of_a_record_is_answered(echo, write_records, tmp_path, capsys):
    out = tmp_path / "new" / "answers.jsonl"
    answer_records(echo, load_records(write_records(RECORD)), out, {"on_text": show})
    assert [answer.generated for answer in compare.read_answers(out)] == ["Point to the car.", "Wie viele?"]
    first, second = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert first["annotated"] == '<points coords="0.5 1 500 500">car</points>'
    assert second == {"prompt": "Wie viele?", "annotated": "Zwölf.", "generated": "Wie viele?"}
    assert "Zwölf" in out.read_text(encoding="utf-8")
    assert [example.media[0].times for example in echo.asked] == [(1.0, 1.5, 2.0)] * 2
    assert capsys.readouterr().out == (
        "\nstreet: Point to the car.\nPoint to the car.\n\nstreet: Wie viele?\nWie viele?\n"
    )


def test_answers_are_kept_when_a_later_one_fails(echo, write_records, tmp_path, monkeypatch):
    out = tmp_path / "answers.jsonl"
    records = load_records(write_records(RECORD))

    def fail_on_second(example, **_):
        if echo.asked:
            raise KeyboardInterrupt
        echo.asked.append(example)
        return "one"

    monkeypatch.setattr(echo, "answer", fail_on_second)
    with pytest.raises(KeyboardInterrupt):
        answer_records(echo, records, out, {"on_text": show})
    assert not out.exists()  # half of the answers are not the answers
    (unfinished,) = tmp_path.glob("*.unfinished")
    assert [answer.generated for answer in compare.read_answers(unfinished)] == ["one"]


def test_a_prompt_that_cannot_be_asked_leaves_earlier_answers_alone(echo, write_records, tmp_path):
    out = tmp_path / "answers.jsonl"
    out.write_text("earlier")
    long = RECORD | {"id": "long", "messages": [{"style": "user_qa", "user": "Hi. " * 2000, "answer": "Hi."}]}
    with pytest.raises(RecordError, match="seq_len"):
        answer_records(echo, load_records(write_records(RECORD, long)), out, {"on_text": show})
    assert out.read_text() == "earlier" and not echo.asked
