"""The files of a Molmo2 directory that turn text and media into a model's inputs: tokenizer, chat template, views.

    tokenizer.json                  text and special tokens     tokenizer_config.json    bos, eos, pad
    chat_template.jinja             turns as one string         generation_config.json   bos, eos, pad by id
    preprocessor_config.json        views of images             processor_config.json    how views become tokens
    video_preprocessor_config.json  frames of videos

Names and values are those of the released repositories, which transformers 5 reads as they are. What our data code
always does (views of 378 x 378 without antialiasing, 2 x 2 or 3 x 3 patches a token) is written, and checked when read.
`frame_sample_mode` is followed by vLLM and the code in the released repositories; transformers 5.23 has another
sampler of its own and knows neither it nor `sampling_fps`.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from molmo2_jax.data import views
from molmo2_jax.data.layout import FRAME_TOKENS
from molmo2_jax.hf.config import HfError
from molmo2_jax.text.tokenizer import Tokenizer

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
IMAGES, VIDEOS = "preprocessor_config.json", "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"

# All that a directory may hold for its processor. Code is not taken along: an export has its own (serve.py).
FILES = (
    *(TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *(TEMPLATE, "chat_template.json", GENERATION),
    *(IMAGES, VIDEOS, PROCESSOR),
)
CODE = "auto_map"  # key of a file that names code beside it

_VIEW = {
    "size": {"height": views.VIEW, "width": views.VIEW},
    "patch_size": views.PATCH,
    "resample": 2,  # bilinear, as Pillow numbers it
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_FIXED = {  # file -> what it says, whatever the settings
    IMAGES: _VIEW | {"pooling_size": [views.IMAGE_POOL] * 2, "overlap_margins": [views.MARGIN] * 2},
    # Unless told to, transformers does neither with frames.
    VIDEOS: _VIEW | {"pooling_size": [views.FRAME_POOL] * 2, "do_rescale": True, "do_normalize": True},
    PROCESSOR: {
        "image_use_col_tokens": True,
        "use_single_crop_col_tokens": False,
        "use_single_crop_start_token": True,
        "video_use_col_tokens": False,
    },
}
_USUAL = {  # what some writers leave out
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "do_sample_frames": True,
    "rescale_factor": 1 / 255,
    "frame_sample_mode": "uniform_last_frame",
}
NESTED = {IMAGES: "image_processor", VIDEOS: "video_processor"}  # where transformers 5 puts them in PROCESSOR
_PADS = ("<|pad|>", "<|endoftext|>")  # of OLMo3, of Qwen3


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """What a processor decides of our DataConfig, by the same names."""

    max_crops: int
    max_frames: int
    fps: float
    frame_tokens: str


def write_processor(folder: pathlib.Path, tok: Tokenizer, settings: ViewSettings) -> None:
    """Writes every file of the picture above.

    Raises:
      HfError: a setting that this format cannot express.
      ValueError: ids of the tokenizer are taken that Molmo2 gives to its own tokens.
    """
    if settings.fps != int(settings.fps):
        raise HfError(f"fps = {settings.fps:g}: a processor samples a whole number of frames a second")
    if settings.frame_tokens not in FRAME_TOKENS:
        raise HfError(f"frame_tokens is {settings.frame_tokens!r}, not one of {tuple(FRAME_TOKENS)}")
    fps = int(settings.fps)
    own = {
        IMAGES: {
            "image_processor_type": "Molmo2ImageProcessor",
            "do_convert_rgb": True,
            "max_crops": settings.max_crops,
        },
        VIDEOS: {
            "video_processor_type": "Molmo2VideoProcessor",
            **_USUAL,
            "num_frames": settings.max_frames,
            "max_fps": fps,
            "sampling_fps": fps,
        },
        PROCESSOR: {"use_frame_special_tokens": settings.frame_tokens == "frame"},
    }
    for name, values in own.items():
        write_json(folder / name, _FIXED[name] | values | {"processor_class": "Molmo2Processor"})
    shutil.copyfile(pathlib.Path(__file__).with_name(TEMPLATE), folder / TEMPLATE)
    (folder / TOKENIZER).write_text(tok.to_json(), encoding="utf-8")
    ids = {"bos_token": tok.bos_id, "eos_token": tok.eos_id, "pad_token": _pad_id(tok)}
    write_json(folder / GENERATION, {f"{role}_id": i for role, i in ids.items()})
    described = {
        # The class that takes tokenizer.json as it is; those named after models build their own from its vocabulary.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "Molmo2Processor",
        "padding_side": "left",
        "add_bos_token": False,  # the processor adds it
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / TOKENIZER_CONFIG, described | {role: tok.decode([i]) for role, i in ids.items()})


def copy_processor(source: pathlib.Path, target: pathlib.Path) -> list[str]:
    """Copies the processor's files of a directory, but for the names of code that they came with; returns their names.

    Raises:
      HfError: one without which there is no processor is missing.
    """
    for name in (TOKENIZER, PROCESSOR):
        if not (source / name).is_file():
            raise HfError(f"{source / name}: no such file; this directory holds no processor")
    names = [name for name in FILES if (source / name).is_file()]
    for name in names:
        text = (source / name).read_text(encoding="utf-8")
        if name.endswith(".json") and CODE in text:
            values = json.loads(text)
            write_json(target / name, {key: value for key, value in values.items() if key != CODE})
        else:
            shutil.copyfile(source / name, target / name)
    return names


def read_processor(folder: pathlib.Path) -> ViewSettings:
    """What the processor of a directory makes of media, as settings of our data code, which must do the same.

    Raises:
      HfError: a file or key is missing, or a value that our data code does not have. Names file and key.
    """
    whole = read_json(folder / PROCESSOR)
    found = {name: whole[key] if key in whole else read_json(folder / name) for name, key in NESTED.items()}
    for name, values in (found | {PROCESSOR: whole}).items():
        _check(values, _FIXED[name], folder / name)
    frames = _get(whole, "use_frame_special_tokens", folder / PROCESSOR)
    return ViewSettings(
        max_crops=int(_get(found[IMAGES], "max_crops", folder / IMAGES)),
        max_frames=int(_get(found[VIDEOS], "num_frames", folder / VIDEOS)),
        fps=float(_get(found[VIDEOS], "max_fps", folder / VIDEOS)),
        frame_tokens="frame" if frames else "im",
    )


def _pad_id(tok: Tokenizer) -> int:
    for name in _PADS:
        with contextlib.suppress(ValueError):
            return tok.special(name)
    return tok.eos_id


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes a file of a directory, its keys sorted."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """What such a file says. Raises HfError where it is missing or no JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HfError(f"{path}: no such file; it says how media become tokens") from error
    except json.JSONDecodeError as error:
        raise HfError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise HfError(f"{path}: not an object")
    return values


def _get(values: Mapping[str, Any], key: str, path: pathlib.Path) -> Any:
    if values.get(key) is None:
        raise HfError(f"{path} has no {key!r}")
    return values[key]


def _check(values: Mapping[str, Any], fixed: Mapping[str, Any], path: pathlib.Path) -> None:
    """Every value is the one that our data code has."""
    present = {key: _get(values, key, path) for key in fixed}
    present |= {key: values[key] for key in _USUAL if values.get(key) is not None}
    for key, expected in (_USUAL | fixed).items():
        if key in present and present[key] != expected:
            raise HfError(f"{path}: {key} is {present[key]!r}; only {expected!r} is possible here")
