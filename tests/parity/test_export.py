"""From a workdir to transformers and back: export, load with the Auto classes, answer, convert back, answer.

The weights are random, so the answers are random, too; what counts is that they are the same, token by token.
"""

import av
import jax
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from data_pipelines.media.location import Location
from data_pipelines.media.medium import open_image
from data_pipelines.sequence.example import describe_prompt
from molmo2_jax.generate.answer import answer
from molmo2_jax.generate.load import load_model
from molmo2_jax.weights import convert
from tests.molmo2_jax.generate.saved_run import save_run
from tests.molmo2_jax.models.small import small

QUESTION = "Point to the black car."
NEW = 48


@pytest.fixture(scope="module")
def photograph(tmp_path_factory, street_video):
    """A frame of the street clip as a PNG file: two crops and an overview."""
    path = tmp_path_factory.mktemp("media") / "street.png"
    with av.open(street_video) as container:
        next(container.decode(video=0)).to_image().save(path)
    return path


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, data_config):
    directory = tmp_path_factory.mktemp("run")
    # Untied: a random model whose head is its embedding repeats the last token.
    save_run(directory, small(vocab=151_936, tied=False), data_config(seq_len=2048, crops=9, pooled=1316))
    return directory


@pytest.fixture(scope="module")
def exported(tmp_path_factory, workdir):
    folder = tmp_path_factory.mktemp("hf") / "export"
    convert.orbax_to_hf(str(workdir), folder, layout="released", dtype=None, max_positions=4096)
    return folder


def our_answer(source, photograph) -> str:
    loaded = load_model(source, jax.devices()[:1])
    prompt = describe_prompt(QUESTION, (open_image(Location.of(photograph)),), loaded.tok, loaded.view)
    return answer(loaded, prompt, max_new=NEW, temperature=0.0, top_p=1.0, seed=0)


def test_an_export_answers_in_transformers_and_converted_back_as_the_run_does(workdir, exported, photograph, tmp_path):
    processor = AutoProcessor.from_pretrained(exported)
    model, info = AutoModelForImageTextToText.from_pretrained(exported, output_loading_info=True)
    assert not any(info.values()), info

    content = [{"type": "image", "image": Image.open(photograph)}, {"type": "text", "text": QUESTION}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        out = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
    new = out[0, inputs["input_ids"].shape[1] :]
    expected = processor.tokenizer.decode(new, skip_special_tokens=True)
    assert len(new) == NEW and len(set(new.tolist())) > 1  # neither cut short nor one repeated token

    assert our_answer(workdir, photograph) == expected
    assert our_answer(f"hf:{exported}", photograph) == expected
    convert.hf_to_orbax(str(exported), tmp_path / "orbax")
    assert our_answer(tmp_path / "orbax", photograph) == expected
