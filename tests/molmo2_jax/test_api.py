"""The Python API, on a checkpoint of the tiny model."""

import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import molmo2_jax as m2
from data_pipelines.config import ConfigError
from data_pipelines.errors import ExampleError, MediaError
from data_pipelines.media.frame_sampling import uniform_last_frame
from data_pipelines.media.video import decode_frames
from molmo2_jax.viewer.page import page_title

ROOT = pathlib.Path(__file__).parents[2]
EXPERIMENT = str(ROOT / "experiments" / "overfit_video_point.py")
BIKES = ROOT / "experiments" / "street" / "bikes.mp4"
SHORT = {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """One step of the demo, trained by m2.train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])
        return m2.train(EXPERIMENT, tmp_path_factory.mktemp("api") / "run", {"steps": 1, "checkpoint.every": 1})


@pytest.fixture(scope="module")
def model(workdir):
    return m2.load(workdir, devices=jax.local_devices()[:1])


def test_train_returns_the_workdir_that_load_takes(workdir):
    assert (workdir / "checkpoints" / "1").is_dir()


def test_the_pieces_of_a_stream_are_the_answer(model):
    answer = model.ask("What is it?", video=BIKES, clip=(3.0, 4.0), **SHORT)
    pieces = list(model.stream("What is it?", video=str(BIKES), clip=(3.0, 4.0), **SHORT))
    assert "".join(pieces) == answer.text and answer.prompt == "What is it?"
    assert model.ask("What is it?", **SHORT).media == ()


def test_frames_with_times_are_seen_like_the_file_they_are_from(model):
    times = uniform_last_frame(1.0, 16, 2.0)
    frames = list(decode_frames(str(BIKES), 3.0 + times))
    want = model.ask("What is it?", video=BIKES, clip=(3.0, 4.0), **SHORT).text
    assert model.ask("What is it?", video=(np.stack(frames), times), **SHORT).text == want
    assert model.ask("What is it?", video=([Image.fromarray(f) for f in frames], list(times)), **SHORT).text == want


def test_an_image_is_a_path_a_pil_image_or_an_array(model, tmp_path):
    pixels = next(decode_frames(str(BIKES), [0.0]))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    texts = {
        model.ask("What is it?", image=image, **SHORT).text
        for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels, [pixels])
    }
    assert len(texts) == 1
    two = model.ask("What is it?", image=[pixels, tmp_path / "a.png"], **SHORT)
    assert [medium.size for medium in two.media] == [(640, 272)] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"video": BIKES, "image": np.zeros((8, 8, 3), np.uint8)}, ValueError, "images or a video, not both"),
        ({"clip": (0, 1)}, ValueError, "clip is a part of a video file"),
        ({"video": ([np.zeros((8, 8, 3), np.uint8)] * 2, [0.0]), "clip": (0, 1)}, ValueError, "clip is a part"),
        ({"video": ([np.zeros((8, 8, 3), np.uint8)] * 2, [0.0])}, ValueError, "2 frames need as many times"),
        ({"video": ([np.zeros((8, 8, 3), np.uint8)] * 2, [1.0, 1.0])}, ValueError, "in ascending order"),
        ({"image": np.zeros((8, 8, 3))}, ValueError, "not float64"),
        ({"image": np.zeros((8, 8), np.uint8)}, ValueError, r"uint8\[H, W, 3\]"),
        ({"image": "/nowhere/a.png"}, MediaError, "/nowhere/a.png: no such file"),
        ({"video": BIKES, "clip": (9.0, 99.0)}, ExampleError, r"clip \[9.0, 99.0\]"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.ask("What is it?", **arguments)
    with pytest.raises(error, match=message):
        model.stream("What is it?", **arguments)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("gs://bucket/run", ConfigError, "gs://bucket/run: checkpoints are read from local or mounted folders"),
        ("orbax:gs://bucket/run", ConfigError, "local or mounted folders"),
        ("/nowhere", FileNotFoundError, "/nowhere: no finished checkpoint"),
        ("hf:/nowhere", ValueError, "/nowhere"),
    ],
)
def test_a_source_that_cannot_be_loaded_is_named(source, error, message):
    with pytest.raises(error, match=message):
        m2.load(source)


def test_a_row_is_shown_inline_and_saved(tmp_path):
    page = m2.show_row(EXPERIMENT)
    page.save(tmp_path / "row.html")
    saved = (tmp_path / "row.html").read_text(encoding="utf-8")
    assert "<title>overfit_video_point: overfit</title>" in saved
    inline = page._repr_html_()
    assert inline.startswith("<iframe ") and "&lt;title&gt;overfit_video_point" in inline and "<script" not in inline
    config = m2.load_config(EXPERIMENT)
    assert page_title("config", ["overfit"]) in m2.show_row(config).page
    with pytest.raises(ConfigError, match="overrides go with an experiment file"):
        m2.show_row(config, overrides={"steps": 1})


def test_overrides_reach_the_config():
    config = m2.load_config(f"{ROOT}/experiments/stage2_sft.py:8b,debug", {"optim.groups.llm.lr": 1, "steps": 7})
    assert (config.optim.groups.llm.lr, config.steps, config.model.preset) == (1.0, 7, "tiny")


@pytest.mark.parametrize(
    ("experiment", "overrides", "message"),
    [
        ("/nowhere.py", {}, "no file /nowhere.py"),
        (EXPERIMENT, {"stepz": 1}, '"stepz" does not exist'),
        (EXPERIMENT, {"optim.lr": 1}, '"lr" does not exist'),
        (EXPERIMENT, {"steps.a": 1}, "not a ConfigDict"),
        (EXPERIMENT, {"steps": "many"}, "cannot be casted"),
    ],
)
def test_an_experiment_that_cannot_be_loaded_is_named(experiment, overrides, message):
    with pytest.raises(ConfigError, match=message) as raised:
        m2.load_config(experiment, overrides)
    assert len(str(raised.value)) < 300  # without the whole config


def test_a_config_outside_the_project_imports_its_base(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(
        "from experiments import _base, overfit_video_point\n\n\n"
        "def get_config():\n    c = overfit_video_point.get_config()\n    c.mesh = _base.mesh(data=1)\n    return c\n"
    )
    monkeypatch.chdir(tmp_path)
    assert m2.load_config("mine.py").steps == 150
