import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from data_pipelines.config import ConfigError
from data_pipelines.errors import ExampleError
from data_pipelines.loading.dataset import open_dataset
from data_pipelines.media.video import decode_frames
from data_pipelines.records.problems import RecordError
from data_pipelines.sequence.example import describe_prompt
from molmo2_jax.cli import generate
from molmo2_jax.cli.generate import answer_prompt, answer_records, check_task, read_media
from molmo2_jax.generate.prompt_media import open_media
from molmo2_jax.viewer import answers

ROOT = Path(__file__).parents[3]
NOTHING = {"video": None, "image": (), "clip": None}


class Echo:
    """Stands for a loaded model. Its answer is its prompt, so that tests can read what reaches the model."""

    def __init__(self, tok, data):
        self.tok, self.view, self.prompts = tok, data.view, data.prompts
        self.asked = []


def echo_answer(loaded, prompt, *, on_text):
    """In the place of generate.answer.answer."""
    loaded.asked.append(prompt)
    words = loaded.tok.decode(prompt.turns[0].user).split("user\n")[1].split("<|im_end|>")[0]
    on_text(words)
    return words


@pytest.fixture
def echo(tokenizer, data_config, monkeypatch):
    monkeypatch.setattr(generate, "answer", echo_answer)
    return Echo(tokenizer, data_config())


def read_prompt(echo, text, media):
    return describe_prompt(text, open_media(**media), echo.tok, echo.view)


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
        (None, ["a.png"], None, NOTHING | {"image": ("a.png",)}),
        (None, ["a.png", "b.png"], None, NOTHING | {"image": ("a.png", "b.png")}),
        ("a.mp4", None, ["3.04", " 7"], NOTHING | {"video": "a.mp4", "clip": (3.04, 7.0)}),
    ],
)
def test_media_are_read_from_flags(video, image, clip, expected):
    assert read_media(video, image, clip) == expected


@pytest.mark.parametrize("clip", [["3"], ["a", "b"], ["1", "2", "3"], [], ["", "4"], ["1", "2s"]])
def test_a_clip_that_is_not_two_numbers_is_named(clip):
    with pytest.raises(ConfigError, match=rf"--clip={','.join(clip)}: expected START,END in seconds"):
        read_media("a.mp4", None, clip)


def test_media_that_exclude_each_other():
    with pytest.raises(ConfigError, match="--video or --image, not both"):
        read_media("a.mp4", ["a.png"], None)
    for image in (None, ["a.png"]):
        with pytest.raises(ConfigError, match="--clip needs --video"):
            read_media(None, image, ["1", "2"])


@pytest.mark.parametrize("image", [[], [""], ["a.png", ""]])
def test_an_image_without_a_name_is_refused(image):
    with pytest.raises(ConfigError, match=f"--image={','.join(image)}: expected one or more files"):
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
    check_task("Hi.", False, None, NOTHING | {"image": ("a.png",)})
    check_task(None, True, "a.jsonl", NOTHING)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--video=a.mp4", "--clip=3", "--prompt=Hi."], "--clip=3: expected START,END in seconds, such as 3.04,7.44"),
        (["--prompt=Hi.", "--top_p=0"], "--top_p=0: must be above 0"),
    ],
)
def test_a_mistake_is_one_line_of_output(tmp_path, flags, message):
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


def test_a_clip_outside_its_video_is_named(echo, street_video):
    media = NOTHING | {"video": street_video}
    for clip in ((3.0, 99.0), (4.0, 3.0), (float("nan"), 3.0)):
        with pytest.raises(ExampleError, match=r"bikes.mp4: clip \[.*is empty or not inside the video"):
            read_prompt(echo, "Hi.", media | {"clip": clip})


def test_a_prompt_longer_than_a_training_row_is_answered(echo, capsys, data_config):
    text = " ".join(["Hi."] * data_config().row.seq_len)
    assert answer_prompt(echo, read_prompt(echo, text, NOTHING), {"on_text": show}) == text
    assert echo.asked[0].n_tokens > data_config().row.seq_len
    assert capsys.readouterr().out == f"{text}\n"


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
    assert [answer.generated for answer in answers.read_answers(out)] == ["Point to the car.", "Wie viele?"]
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

    def fail_on_second(loaded, prompt, **_):
        if loaded.asked:
            raise KeyboardInterrupt
        loaded.asked.append(prompt)
        return "one"

    monkeypatch.setattr(generate, "answer", fail_on_second)
    with pytest.raises(KeyboardInterrupt):
        answer_records(echo, records, out, {"on_text": show})
    assert not out.exists()  # it appears only with all answers
    (unfinished,) = tmp_path.glob("*.unfinished")
    assert [answer.generated for answer in answers.read_answers(unfinished)] == ["one"]


def test_a_prompt_that_cannot_be_asked_leaves_earlier_answers_alone(echo, write_records, tmp_path):
    out = tmp_path / "answers.jsonl"
    out.write_text("earlier")
    many = RECORD | {"id": "many", "images": [frame_file(tmp_path).name] * 6}
    del many["video"], many["clip"]
    many["messages"] = [{"style": "user_qa", "user": "Hi.", "answer": "Hi."}]
    with pytest.raises(RecordError, match=r"has 6 images, more than max_images = 5"):
        answer_records(echo, load_records(write_records(RECORD, many)), out, {"on_text": show})
    assert out.read_text() == "earlier" and not echo.asked


def frame_file(folder):
    path = folder / "white.png"
    Image.new("RGB", (40, 30), "white").save(path)
    return path


# The order of checks


def no_model(source, devices=None):
    raise AssertionError(f"{source} is loaded although the flags are wrong")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give either --prompt, or --config and --out"),
        (["--prompt=Hi.", "--out=a.jsonl"], "--out is for the answers of --config"),
        (["--prompt=Hi.", "--clip=1,2"], "--clip needs --video"),
        (["--prompt=Hi.", "--top_p=0"], "--top_p=0: must be above 0"),
    ],
)
def test_flags_are_checked_before_a_model_is_loaded(molmo2, monkeypatch, flags, message):
    monkeypatch.setattr(generate, "load_model", no_model)
    status, out, err = molmo2("generate", "--checkpoint=run", *flags)
    assert (status, out) == (1, "") and err.startswith(f"molmo2 generate: {message}")


def test_the_command_answers_with_the_model_of_its_checkpoint(molmo2, monkeypatch, echo):
    sources = []
    monkeypatch.setattr(generate, "load_model", lambda source: sources.append(source) or echo)
    monkeypatch.setattr(
        generate, "answer", lambda loaded, prompt, **options: echo_answer(loaded, prompt, on_text=options["on_text"])
    )
    assert molmo2("generate", "--checkpoint=hf:allenai/Molmo2-4B", "--prompt=How many?") == (0, "How many?\n", "")
    assert sources == ["hf:allenai/Molmo2-4B"]
