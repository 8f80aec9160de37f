"""Answers the prompts of a folder with vLLM (run by its Python): prompts.json -> answers.json.

prompts.json   {name: {"prompt": text, "images": [files], "clip": file of frames, "metadata": {...}}}
               or {name: {"messages": [{"role": "user", "content": text}]}}
answers.json   {name: {"prompt": [token ids], "tokens": [token ids], "logprobs": [{token id: log probability}]}}
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image
from vllm import LLM, SamplingParams


def media(folder: pathlib.Path, prompt: dict) -> dict:
    """The media of a prompt, in the form that vLLM takes."""
    found = {}
    if "images" in prompt:
        found["image"] = [Image.open(folder / name) for name in prompt["images"]]
    if "clip" in prompt:
        found["video"] = [(np.load(folder / prompt["clip"]), prompt["metadata"])]
    return found


def main(folder: pathlib.Path) -> None:
    """Greedy answers of 16 tokens by the model in `folder`/export, with the log probabilities of the best 20."""
    llm = LLM(
        str(folder / "export"),
        trust_remote_code=True,
        dtype="float32",
        enforce_eager=True,
        max_model_len=2048,
        max_num_batched_tokens=2048,
        limit_mm_per_prompt={"image": 2, "video": 1},
    )
    sampling = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, logprobs=20)
    answers = {}
    for name, prompt in json.loads((folder / "prompts.json").read_text()).items():
        if "messages" in prompt:
            (answer,) = llm.chat(prompt["messages"], sampling)
        else:
            given = {"prompt": prompt["prompt"], "multi_modal_data": media(folder, prompt)}
            (answer,) = llm.generate(given, sampling)
        (output,) = answer.outputs
        logprobs = [{token: found.logprob for token, found in best.items()} for best in output.logprobs]
        answers[name] = {"prompt": answer.prompt_token_ids, "tokens": list(output.token_ids), "logprobs": logprobs}
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
