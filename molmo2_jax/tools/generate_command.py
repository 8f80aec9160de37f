"""`molmo2 generate`."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags
from ml_collections import config_flags

from molmo2_jax.data.config import DataConfig
from molmo2_jax.data.dataset import open_dataset
from molmo2_jax.data.example import Example, Media, describe_prompt, first_turns
from molmo2_jax.data.media import Location, open_image, open_video
from molmo2_jax.data.record import Record
from molmo2_jax.generate.answer import Answerer
from molmo2_jax.tools import command
from molmo2_jax.train.config import ConfigError, read


def main(argv: list[str]) -> None:
    """One prompt, answered on stdout as it comes; or, with --config, the prompts of all its records, to --out."""
    checkpoint = flags.DEFINE_string(
        "checkpoint", None, "Workdir of a training run, one step of it, or what `molmo2 convert` wrote."
    )
    prompt = flags.DEFINE_string("prompt", None, "What to ask.")
    video = flags.DEFINE_string("video", None, "Video the prompt is about.")
    image = flags.DEFINE_list("image", None, "Image the prompt is about, or several: A.jpg,B.jpg.")
    clip = flags.DEFINE_list("clip", None, "START,END in seconds: the part of the video to look at.")
    config = config_flags.DEFINE_config_file("config", None, "Experiment whose records' prompts are answered.")
    out = flags.DEFINE_string("out", None, "With --config: JSON lines of prompt, annotated and generated answer.")
    max_new = flags.DEFINE_integer("max_new_tokens", 512, "Longest answer.", lower_bound=1)
    temperature = flags.DEFINE_float("temperature", 0.0, "0 takes the most likely token.", lower_bound=0.0)
    top_p = flags.DEFINE_float(
        "top_p", 1.0, "Share of probability to sample from, above 0.", lower_bound=0.0, upper_bound=1.0
    )
    seed = flags.DEFINE_integer("seed", 0, "Of sampling.")
    flags.mark_flag_as_required("checkpoint")

    def generate() -> int:
        media = read_media(video.value, image.value, clip.value)
        check_task(prompt.value, config.value is not None, out.value, media)
        if not top_p.value > 0:
            raise ConfigError(f"--top_p is above 0, not {top_p.value:g}")
        answerer = Answerer(checkpoint.value)
        sampling = {
            "max_new": max_new.value,
            "temperature": temperature.value,
            "top_p": top_p.value,
            "seed": seed.value,
            "on_text": _show,
        }
        if config.value is None:
            example = describe_prompt(prompt.value, open_media(**media), answerer.tok, answerer.data)
            answer_prompt(answerer, example, sampling)
        else:
            answer_records(answerer, read_records(read(config.value.to_dict()).data), pathlib.Path(out.value), sampling)
        return 0

    command.run(generate, argv)


def read_media(video: str | None, image: list[str] | None, clip: list[str] | None) -> dict:
    """What the flags say a prompt is about, as `open_media` takes it. Raises ConfigError.

    read_media("bikes.mp4", None, ["3.04", "7.44"])  ->  {"video": "bikes.mp4", "images": (), "clip": (3.04, 7.44)}
    """
    if video is not None and image is not None:
        raise ConfigError("give --video or --image, not both")
    if image is not None and not all(image or [""]):
        raise ConfigError(f"--image={','.join(image)}: it takes a file or several, such as A.jpg,B.jpg")
    if clip is None:
        return {"video": video, "images": tuple(image or ()), "clip": None}
    if video is None:
        raise ConfigError("--clip is a part of a video: give --video, too")
    try:
        start, end = (float(seconds) for seconds in clip)
    except ValueError as error:  # not numbers, or not two
        raise ConfigError(f"--clip={','.join(clip)}: it takes START,END in seconds, such as 3.04,7.44") from error
    return {"video": video, "images": (), "clip": (start, end)}


def check_task(prompt: str | None, config: bool, out: str | None, media: dict) -> None:
    """Raises ConfigError unless the flags name one task: --prompt and its media, or --config and --out."""
    if (prompt is not None) == config:
        raise ConfigError("give either --prompt, or --config and --out")
    if config and out is None:
        raise ConfigError("--config needs --out, the file for its answers")
    if config and any(media.values()):
        raise ConfigError("--video, --image and --clip go with --prompt; the records of --config name their own media")
    if not config and out is not None:
        raise ConfigError("--out is for the answers of --config; that of --prompt goes to stdout")


def open_media(video: str | None, images: Sequence[str], clip: tuple[float, float] | None) -> Media:
    """The media of a prompt. Raises ExampleError, naming the file, also for a clip outside its video."""
    if video is not None:
        return (open_video(Location.of(video), clip),)
    return tuple(open_image(Location.of(image)) for image in images)


def read_records(data: DataConfig) -> list[Record]:
    """The records of all datasets of a mixture. Raises ExampleError for one that cannot be used."""
    sources = [dataset.source for group in data.mixture.values() for dataset in group.datasets.values()]
    datasets = [open_dataset(source) for source in sources]
    return [dataset.record(item) for dataset in datasets for item in range(len(dataset))]


def answer_prompt(answerer: Answerer, example: Example, sampling: dict) -> str:
    """One answer, printed as it comes."""
    answer = answerer.answer(example, **sampling)
    print(flush=True)
    return answer


def answer_records(answerer: Answerer, records: list[Record], out: pathlib.Path, sampling: dict) -> None:
    """Answers the first question of every branch; later turns need the earlier answers and are left out.

    `out` gets a line of JSON an answer, {"prompt": …, "annotated": …, "generated": …}, and is there when all are.
    """
    rng = np.random.default_rng(0)  # of wordings
    asked = [(record, turn) for record in records for turn in first_turns(record, answerer.data, rng)]
    prompts = [describe_prompt(turn.user, record.media, answerer.tok, answerer.data) for record, turn in asked]
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(out.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as lines:
        for (record, turn), prompt in zip(asked, prompts, strict=True):
            print(f"\n{record.id}: {turn.user}")
            generated = answer_prompt(answerer, prompt, sampling)
            line = {"prompt": turn.user, "annotated": turn.answer, "generated": generated}
            print(json.dumps(line, ensure_ascii=False), file=lines, flush=True)
    unfinished.replace(out)


def _show(text: str) -> None:
    print(text, end="", flush=True)
