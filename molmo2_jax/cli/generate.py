"""`molmo2 generate`."""

import json
import pathlib

import numpy as np
from absl import flags
from ml_collections import config_flags

from data_pipelines.config import ConfigError
from data_pipelines.loading.dataset import open_dataset
from data_pipelines.loading.mixture import MixtureConfig
from data_pipelines.records.read import Record
from data_pipelines.sequence.example import Example, describe_prompt, first_turns
from molmo2_jax.cli import command
from molmo2_jax.generate.answer import answer
from molmo2_jax.generate.load import LoadedModel, load_model
from molmo2_jax.generate.prompt_media import open_media
from molmo2_jax.train.config import read


def main(argv: list[str]) -> None:
    """Answers --prompt, printing the text as it is generated; or the prompts of all records of --config, to --out."""
    checkpoint = flags.DEFINE_string(
        "checkpoint",
        None,
        "Workdir of a training run, one of its steps, what `molmo2 convert` wrote, or a Molmo2 of Hugging Face: "
        "hf:FOLDER, hf:gs://… or hf:ORG/NAME.",
    )
    prompt = flags.DEFINE_string("prompt", None, "The question.")
    video = flags.DEFINE_string("video", None, "Video the prompt is about.")
    image = flags.DEFINE_list("image", None, "Image the prompt is about, or several: A.jpg,B.jpg.")
    clip = flags.DEFINE_list("clip", None, "START,END in seconds: the part of the video to show.")
    config = config_flags.DEFINE_config_file("config", None, "Experiment config: answers the prompts of its records.")
    out = flags.DEFINE_string(
        "out", None, "With --config: file of JSON lines with prompt, annotated and generated answer."
    )
    max_new = flags.DEFINE_integer("max_new_tokens", 512, "Longest answer.", lower_bound=1)
    temperature = flags.DEFINE_float("temperature", 0.0, "0 takes the most likely token.", lower_bound=0.0)
    top_p = flags.DEFINE_float(
        "top_p", 1.0, "Probability mass to sample from, above 0.", lower_bound=0.0, upper_bound=1.0
    )
    seed = flags.DEFINE_integer("seed", 0, "Seed of sampling.")
    flags.mark_flag_as_required("checkpoint")

    def generate() -> int:
        media = read_media(video.value, image.value, clip.value)
        check_task(prompt.value, config.value is not None, out.value, media)
        if not top_p.value > 0:
            raise ConfigError(f"--top_p={top_p.value:g}: must be above 0")
        loaded = load_model(checkpoint.value)
        sampling = {
            "max_new": max_new.value,
            "temperature": temperature.value,
            "top_p": top_p.value,
            "seed": seed.value,
            "on_text": _print_text,
        }
        if config.value is None:
            example = describe_prompt(prompt.value, open_media(**media), loaded.tok, loaded.view)
            answer_prompt(loaded, example, sampling)
        else:
            records = read_records(read(config.value.to_dict()).data.mixture)
            answer_records(loaded, records, pathlib.Path(out.value), sampling)
        return 0

    command.run(generate, argv)


def read_media(video: str | None, image: list[str] | None, clip: list[str] | None) -> dict:
    """The flags of a prompt's media as arguments of `open_media`. Raises ConfigError.

    read_media("bikes.mp4", None, ["3.04", "7.44"])  ->  {"video": "bikes.mp4", "image": (), "clip": (3.04, 7.44)}
    """
    if video is not None and image is not None:
        raise ConfigError("give --video or --image, not both")
    if image is not None and not all(image or [""]):
        raise ConfigError(f"--image={','.join(image)}: expected one or more files, such as A.jpg,B.jpg")
    if clip is None:
        return {"video": video, "image": tuple(image or ()), "clip": None}
    if video is None:
        raise ConfigError("--clip needs --video: it selects a part of it")
    try:
        start, end = (float(seconds) for seconds in clip)
    except ValueError as error:  # not numbers, or not two
        raise ConfigError(f"--clip={','.join(clip)}: expected START,END in seconds, such as 3.04,7.44") from error
    return {"video": video, "image": (), "clip": (start, end)}


def check_task(prompt: str | None, config: bool, out: str | None, media: dict) -> None:
    """Raises ConfigError unless the flags name one task: --prompt and its media, or --config and --out."""
    if (prompt is not None) == config:
        raise ConfigError("give either --prompt, or --config and --out")
    if config and out is None:
        raise ConfigError("--config needs --out, the file for its answers")
    if config and any(media.values()):
        raise ConfigError("--video, --image and --clip go with --prompt; the records of --config name their own media")
    if not config and out is not None:
        raise ConfigError("--out is for the answers of --config; the answer to --prompt is printed")


def read_records(mixture: MixtureConfig) -> list[Record]:
    """The records of all datasets of a mixture. Raises ExampleError for one that cannot be used."""
    sources = [dataset.source for group in mixture.groups.values() for dataset in group.datasets.values()]
    datasets = [open_dataset(source) for source in sources]
    return [dataset.record(item) for dataset in datasets for item in range(len(dataset))]


def answer_prompt(loaded: LoadedModel, example: Example, sampling: dict) -> str:
    """Answers one prompt, printing the answer as it is generated."""
    text = answer(loaded, example, **sampling)
    print(flush=True)
    return text


def answer_records(loaded: LoadedModel, records: list[Record], out: pathlib.Path, sampling: dict) -> None:
    """Answers the first question of every branch; later turns depend on earlier answers and are left out.

    Writes one JSON line per answer, {"prompt": …, "annotated": …, "generated": …}; `out` appears when all are written.
    """
    rng = np.random.default_rng(0)  # draws the wording
    asked = [(record, turn) for record in records for turn in first_turns(record, loaded.view, loaded.prompts, rng)]
    prompts = [describe_prompt(turn.user, record.media, loaded.tok, loaded.view) for record, turn in asked]
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(out.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as lines:
        for (record, turn), prompt in zip(asked, prompts, strict=True):
            print(f"\n{record.id}: {turn.user}")
            generated = answer_prompt(loaded, prompt, sampling)
            line = {"prompt": turn.user, "annotated": turn.answer, "generated": generated}
            print(json.dumps(line, ensure_ascii=False), file=lines, flush=True)
    unfinished.replace(out)


def _print_text(text: str) -> None:
    print(text, end="", flush=True)
