"""`molmo2 generate`."""

import json
import pathlib

from absl import flags
from ml_collections import config_flags

from molmo2_jax.data.example import Example, answer_text, describe_prompt
from molmo2_jax.data.failure import MediaError
from molmo2_jax.data.record import Record, RecordError, VideoMedium, load_records
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
            answer_prompt(answerer, read_prompt(answerer, prompt.value, media), sampling)
        else:
            records = [r for path in read(config.value.to_dict()).data.records for r in load_records(path)]
            answer_records(answerer, records, pathlib.Path(out.value), sampling)
        return 0

    command.run(generate, argv)


def read_media(video: str | None, image: list[str] | None, clip: list[str] | None) -> dict:
    """What the flags say a prompt is about, as `describe_prompt` takes it. Raises ConfigError.

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


def read_prompt(answerer: Answerer, text: str, media: dict) -> Example:
    """The prompt as an example. Raises MediaError, RecordError, or ConfigError for a clip outside its video."""
    try:
        return describe_prompt(text, answerer.tok, answerer.data, **media)
    except (MediaError, RecordError):
        raise
    except ValueError as error:
        raise ConfigError(f"--clip: {error}") from error


def answer_prompt(answerer: Answerer, example: Example, sampling: dict) -> str:
    """One answer, printed as it comes."""
    answer = answerer.answer(example, **sampling)
    print(flush=True)
    return answer


def answer_records(answerer: Answerer, records: list[Record], out: pathlib.Path, sampling: dict) -> None:
    """Answers the first question of every branch; later turns need the earlier answers and are left out.

    `out` gets a line of JSON an answer, {"prompt": …, "annotated": …, "generated": …}, and is there when all are.
    """
    asked = [(record, message) for record in records for message in record.messages]
    prompts = [read_prompt(answerer, message.user, _media(record)) for record, message in asked]
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(out.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as lines:
        for (record, message), prompt in zip(asked, prompts, strict=True):
            print(f"\n{record.id}: {message.user}")
            generated = answer_prompt(answerer, prompt, sampling)
            annotated = answer_text(message, record.media)
            line = {"prompt": message.user, "annotated": annotated, "generated": generated}
            print(json.dumps(line, ensure_ascii=False), file=lines, flush=True)
    unfinished.replace(out)


def _media(record: Record) -> dict:
    media = {"video": None, "images": (), "clip": None}
    for medium in record.media:
        if isinstance(medium, VideoMedium):
            media |= {"video": medium.path, "clip": (medium.start, medium.end)}
        else:
            media["images"] += (medium.path,)
    return media


def _show(text: str) -> None:
    print(text, end="", flush=True)
