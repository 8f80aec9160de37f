"""An export in vLLM, on CPUs: prompts and probabilities of answers are those of transformers.

vLLM needs another version of transformers, so it has an environment of its own (`make test-slow`), without which this
skips.
Its Molmo2 (0.32, 0.33) deviates from the model in three ways; two are neutralised here, to compare everything else:

    it leaves out the embedding of <im_patch>, to which features are added     the row is zero here
    on CPUs visual tokens do not see later ones                                transformers gets the same mask
    it always puts frames between <frame_start> and <frame_end>                the export's configuration handles this
"""

import dataclasses
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from data_pipelines.media.video import decode_frames
from data_pipelines.text.tokenizer import SPECIAL_TOKENS
from molmo2_jax.weights import convert
from molmo2_jax.weights.hf.tensor_files import SINGLE
from tests.molmo2_jax.generate.saved_run import save_run
from tests.molmo2_jax.models.small import OLMO, small

HERE = pathlib.Path(__file__).parent / "vllm"
PYTHON = pathlib.Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python"
_INSTALLED = (PYTHON.parents[1] / ".ready").exists()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not _INSTALLED, reason="no vLLM: `make test-slow` installs it")]

QUESTION = "<|im_start|>user\nPoint to the black car.<|im_end|>\n<|im_start|>assistant\n"
CLIP = {"fps": 25.0, "duration": 10.0, "total_num_frames": 250, "frames_indices": [0, 12, 25, 37]}
PROMPTS = {
    "text": {"messages": [{"role": "user", "content": "Point to the black car."}]},
    "image": {"prompt": f"<|image|>{QUESTION}", "images": ["wide.png"]},
    "images": {"prompt": f"Image 1<|image|>Image 2<|image|>{QUESTION}", "images": ["wide.png", "tall.png"]},
    "video": {"prompt": f"<|video|>{QUESTION}", "clip": "clip.npy", "metadata": CLIP | {"do_sample_frames": False}},
}
HEADS = {"vocab": 151_936, "width": 64, "head_dim": 64, "tied": False}  # sizes that vLLM has kernels for
YARN = dataclasses.replace(OLMO["yarn"], original_positions=512)  # vLLM has positions up to factor times that
KINDS = {"qwen3": small(**HEADS), "olmo3": small(**OLMO | HEADS | {"yarn": YARN})}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory, data_config, street_video):
    """A folder with an export, media, prompts, and vLLM's answers."""
    folder = tmp_path_factory.mktemp("served")
    c = KINDS[request.param]
    c = dataclasses.replace(
        c,
        vit=dataclasses.replace(c.vit, width=64, heads=2),
        connector=dataclasses.replace(c.connector, heads=2, head_dim=32),
    )
    save_run(folder / "run", c, data_config(seq_len=2048, crops=9, pooled=1316), scale=0.1)
    convert.orbax_to_hf(str(folder / "run"), folder / "export", layout="released", dtype=None, max_positions=4096)
    weights = load_file(folder / "export" / SINGLE)
    weights["model.transformer.wte.new_embedding"][SPECIAL_TOKENS.index("<im_patch>")] = 0
    save_file(weights, folder / "export" / SINGLE, metadata={"format": "pt"})

    clip = np.stack(list(decode_frames(street_video, np.array(CLIP["frames_indices"]) / CLIP["fps"])))
    np.save(folder / "clip.npy", clip)
    Image.fromarray(clip[0]).save(folder / "wide.png")
    Image.fromarray(clip[1][:, :150]).save(folder / "tall.png")
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    environment = {
        "PYTHONPATH": str(HERE),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(folder / "modules"),
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCHDYNAMO_DISABLE": "1",
    }
    command = [PYTHON, HERE / "serve.py", folder]
    inherited = {key: value for key, value in os.environ.items() if key != "ATEN_CPU_CAPABILITY"}  # set in conftest.py
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return folder


@pytest.fixture(scope="module")
def transformers_inputs(folder):
    """transformers_inputs(name): the inputs of a prompt."""
    processor = AutoProcessor.from_pretrained(folder / "export")

    def make(name):
        prompt = PROMPTS[name]
        if "messages" in prompt:
            text = processor.apply_chat_template(prompt["messages"], add_generation_prompt=True)
            return processor(text=text, return_tensors="pt")
        media = {}
        if "images" in prompt:
            media["images"] = [Image.open(folder / file).convert("RGB") for file in prompt["images"]]
        if "clip" in prompt:
            media |= {"videos": [np.load(folder / prompt["clip"])], "video_metadata": [VideoMetadata(**CLIP)]}
            media["do_sample_frames"] = False
        return processor(text=prompt["prompt"], return_tensors="pt", **media)

    return make


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForImageTextToText.from_pretrained(folder / "export")


@pytest.mark.parametrize("name", PROMPTS)
def test_vllm_answers_as_transformers_does(folder, model, transformers_inputs, name):
    answer = json.loads((folder / "answers.json").read_text())[name]
    inputs = transformers_inputs(name)
    (prompt,) = inputs["input_ids"].tolist()
    assert answer["prompt"] == prompt
    assert len(answer["tokens"]) == 16
    inputs["input_ids"] = torch.tensor([prompt + answer["tokens"]])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = torch.zeros_like(inputs["input_ids"])  # causal throughout
    with torch.inference_mode():
        logits = model(**inputs).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)
    assert expected.std() > 0.5  # neither flat nor concentrated on one token
    assert expected.argmax(-1).tolist() == answer["tokens"]
    for step, best in zip(expected, answer["logprobs"], strict=True):
        for token, found in best.items():
            assert abs(step[int(token)] - found) < 1e-4
