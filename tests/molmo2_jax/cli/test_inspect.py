import json
import pathlib
import re

import numpy as np
import pytest

from data_pipelines.loading.data import Data
from data_pipelines.packing.schema import FIELDS
from data_pipelines.records.problems import RecordError
from molmo2_jax.cli import inspect
from molmo2_jax.train.experiment import experiment_name
from molmo2_jax.viewer.branch_gradients import GradientTable

ROOT = pathlib.Path(__file__).parents[3]
CONFIG = f"--config={ROOT}/experiments/overfit_video_point.py"
TEXT = {"style": "text_sft", "user": "Say hi.", "answer": "hi"}

# ml_collections loads config files the old way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def test_the_command_draws_the_first_experiment(molmo2, tmp_path):
    record = json.loads((ROOT / "experiments/street/overfit.jsonl").read_text().splitlines()[0])
    prompt = record["messages"][0]["user"]
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"prompt": prompt, "annotated": "annotated", "generated": "guessed"}))
    out = tmp_path / "new" / "page.html"
    status, stdout, stderr = molmo2("inspect", CONFIG, f"--answers={answers}", f"--out={out}")
    assert status == 0, stderr
    assert stdout == f"wrote {out}\n"
    page = out.read_text(encoding="utf-8")
    assert "<title>overfit_video_point: overfit</title>" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    (example,) = data["rows"][0]["examples"]
    assert (example["dataset"], example["id"], example["failed"]) == ("overfit", record["id"], None)
    assert example["tags"] and len(example["pictures"]) == len(data["crop_images"])
    assert data["answers"][0]["generated"]["parts"][0] == ["guessed", True]
    assert str(ROOT) not in page


def test_the_experiment_is_named_without_its_arguments():
    assert experiment_name("experiments/stage2_sft.py:8b,data=/mnt/molmo2.1") == "stage2_sft"
    assert experiment_name("/tmp/overfit.py") == "overfit"


def test_a_mistake_is_one_line_and_no_page(molmo2, tmp_path):
    (tmp_path / "answers.jsonl").write_text("{}")
    out = tmp_path / "page.html"
    status, _, stderr = molmo2("inspect", CONFIG, f"--answers={tmp_path / 'answers.jsonl'}", f"--out={out}")
    assert status == 1
    assert stderr.startswith("molmo2 inspect: --answers: ")
    assert "answers.jsonl:1: an answer must have" in stderr and "Traceback" not in stderr
    assert not out.exists()


def test_the_rows_are_the_first_of_the_run(write_records, data_config):
    path = write_records({"id": "a", "messages": [TEXT]}, {"id": "b", "messages": [TEXT]})
    data = Data(data_config(records=[path], seq_len=128), vocab_size=151_936, vision_shards=1)
    batch, whole = (data.first_batch(seed=0, rows=rows, streams=3) for rows in (2, 3))
    assert batch["tokens"].shape == (2, 128) and batch["loss_weights"].any(axis=1).all()
    assert [len(names) for names in batch["examples"]] == [len(names) for names in whole["examples"]][:2]
    for name in FIELDS:
        np.testing.assert_array_equal(batch[name], whole[name][:2])


def test_wrong_records_are_named(write_records, data_config):
    path = write_records({"id": "a", "video": "gone.mp4", "messages": [TEXT]})
    with pytest.raises(RecordError, match=r"record 'a'.*gone\.mp4"):
        Data(data_config(records=[path]), vocab_size=151_936, vision_shards=1)


def test_a_leak_is_an_exit_status(capsys):
    visible = np.array([[True, False]])
    right, leaking = (GradientTable(["A", "B"], [0], visible, np.array([[1.0, x]])) for x in (0.0, 1e-20))
    assert inspect._report_leaks([right]) == 0
    assert inspect._report_leaks([right, leaking]) == 1
    assert "wrong gradients: A -> B" in capsys.readouterr().out
