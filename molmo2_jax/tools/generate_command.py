"""`molmo2 generate`."""

import json
import pathlib

from absl import flags
from ml_collections import config_flags

from molmo2_jax.data.example import answer_text, describe_prompt
from molmo2_jax.data.record import Record, VideoMedium, load_records
from molmo2_jax.generate.answer import Answerer
from molmo2_jax.tools import command
from molmo2_jax.train.config import ConfigError, read


def main(argv: list[str]) -> None:
    """One prompt, answered on stdout as it comes; or, with --config, the prompts of all its records, to --out."""
    checkpoint = flags.DEFINE_string("checkpoint", None, "Workdir of a training run, or one step of it.")
    prompt = flags.DEFINE_string("prompt", None, "What to ask.")
    video = flags.DEFINE_string("video", None, "Video the prompt is about.")
    image = flags.DEFINE_string("image", None, "Image the prompt is about.")
    clip = flags.DEFINE_list("clip", None, "START,END in seconds: the part of the video to look at.")
    config = config_flags.DEFINE_config_file("config", None, "Experiment whose records' prompts are answered.")
    out = flags.DEFINE_string("out", None, "With --config: JSON lines of prompt, annotated and generated answer.")
    max_new = flags.DEFINE_integer("max_new_tokens", 512, "Longest answer.", lower_bound=1)
    temperature = flags.DEFINE_float("temperature", 0.0, "0 takes the most likely token.", lower_bound=0.0)
    top_p = flags.DEFINE_float("top_p", 1.0, "Share of probability to sample from.", lower_bound=0.0, upper_bound=1.0)
    seed = flags.DEFINE_integer("seed", 0, "Of sampling.")
    flags.mark_flag_as_required("checkpoint")

    def generate() -> int:
        if (prompt.value is None) == (config.value is None) or (config.value is None) != (out.value is None):
            raise ConfigError("give either --prompt, or --config and --out")
        answerer = Answerer(checkpoint.value)
        sampling = {
            "max_new": max_new.value,
            "temperature": temperature.value,
            "top_p": top_p.value,
            "seed": seed.value,
            "on_text": _show,
        }
        if config.value is not None:
            records = [r for path in read(config.value.to_dict()).data.records for r in load_records(path)]
            _answer_records(answerer, records, pathlib.Path(out.value), sampling)
            return 0
        span = tuple(float(x) for x in clip.value) if clip.value else None
        _answer(answerer, prompt.value, {"video": video.value, "image": image.value, "clip": span}, sampling)
        return 0

    command.run(generate, argv)


def _answer(answerer: Answerer, text: str, media: dict, sampling: dict) -> str:
    example = describe_prompt(text, answerer.tok, answerer.config.data, **media)
    answer = answerer.answer(example, **sampling)
    print(flush=True)
    return answer


def _answer_records(answerer: Answerer, records: list[Record], out: pathlib.Path, sampling: dict) -> None:
    """Answers the first question of every branch; later turns need the earlier answers and are left out."""
    lines = []
    for record in records:
        media = {"video": None, "image": None, "clip": None}
        for medium in record.media:
            if isinstance(medium, VideoMedium):
                media |= {"video": medium.path, "clip": (medium.start, medium.end)}
            else:
                media |= {"image": medium.path}
        for message in record.messages:
            print(f"\n{record.id}: {message.user}")
            generated = _answer(answerer, message.user, media, sampling)
            annotated = answer_text(message, record.media)
            lines.append({"prompt": message.user, "annotated": annotated, "generated": generated})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _show(text: str) -> None:
    print(text, end="", flush=True)
