"""The files of a Molmo2 directory that turn text and media into a model's inputs: tokenizer, chat template, crops.

    tokenizer.json                  text and special tokens     tokenizer_config.json    bos, eos, pad
    chat_template.jinja             turns as one string         generation_config.json   bos, eos, pad by id
    preprocessor_config.json        crops of images             processor_config.json    how crops become tokens
    video_preprocessor_config.json  frames of videos

Names and values are those of the released repositories, which transformers 5 reads as they are. What data_pipelines
always does (crops of 378 x 378 without antialiasing, 2 x 2 or 3 x 3 patches per token) is written, and checked on read.
vLLM and the code of the released repositories follow `frame_sample_mode`; transformers 5.23 has another sampler and
ignores both it and `sampling_fps`.
"""

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from data_pipelines.media import crops
from data_pipelines.media.pooling import FRAME_POOL, IMAGE_POOL
from data_pipelines.sequence.view_config import FRAME_TOKENS
from data_pipelines.text.tokenizer import Tokenizer
from molmo2_jax.weights.hf.config import HfError

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
IMAGES, VIDEOS = "preprocessor_config.json", "video_preprocessor_config.json"
PROCESSOR = "processor_config.json"

# All files of a processor. Code is not copied: an export brings its own (export_code.py).
FILES = (
    *(TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *(TEMPLATE, "chat_template.json", GENERATION),
    *(IMAGES, VIDEOS, PROCESSOR),
)
AUTO_MAP = "auto_map"  # key under which a file names code next to it

_CROP_VALUES = {
    "size": {"height": crops.CROP_SIZE, "width": crops.CROP_SIZE},
    "patch_size": crops.PATCH,
    "resample": 2,  # bilinear, as Pillow numbers it
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_FIXED = {  # file -> values that do not depend on the settings
    IMAGES: _CROP_VALUES | {"pooling_size": [IMAGE_POOL] * 2, "overlap_margins": [crops.MARGIN] * 2},
    # By default, transformers neither rescales nor normalises frames.
    VIDEOS: _CROP_VALUES | {"pooling_size": [FRAME_POOL] * 2, "do_rescale": True, "do_normalize": True},
    PROCESSOR: {
        "image_use_col_tokens": True,
        "use_single_crop_col_tokens": False,
        "use_single_crop_start_token": True,
        "video_use_col_tokens": False,
    },
}
_OPTIONAL = {  # values that some writers leave out
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "do_sample_frames": True,
    "rescale_factor": 1 / 255,
    "frame_sample_mode": "uniform_last_frame",
}
NESTED = {IMAGES: "image_processor", VIDEOS: "video_processor"}  # file -> key of PROCESSOR where transformers 5 puts it
_PAD_TOKENS = ("<|pad|>", "<|endoftext|>")  # of OLMo3, of Qwen3


@dataclasses.dataclass(frozen=True)
class ProcessorSettings:
    """The fields of ViewConfig that a processor determines, by the same names."""

    max_crops: int
    max_frames: int
    fps: float
    frame_tokens: str


def write_processor(folder: pathlib.Path, tok: Tokenizer, settings: ProcessorSettings) -> None:
    """Writes every file of the table above.

    Raises:
      HfError: a setting that this format cannot express.
      ValueError: the tokenizer uses ids that Molmo2 gives to its own tokens.
    """
    if settings.fps != int(settings.fps):
        raise HfError(f"fps = {settings.fps:g}: a processor samples a whole number of frames a second")
    if settings.frame_tokens not in FRAME_TOKENS:
        raise HfError(f"frame_tokens is {settings.frame_tokens!r}, not one of {tuple(FRAME_TOKENS)}")
    fps = int(settings.fps)
    values_by_file = {
        IMAGES: {
            "image_processor_type": "Molmo2ImageProcessor",
            "do_convert_rgb": True,
            "max_crops": settings.max_crops,
        },
        VIDEOS: {
            "video_processor_type": "Molmo2VideoProcessor",
            **_OPTIONAL,
            "num_frames": settings.max_frames,
            "max_fps": fps,
            "sampling_fps": fps,
        },
        PROCESSOR: {"use_frame_special_tokens": settings.frame_tokens == "frame"},
    }
    for name, values in values_by_file.items():
        write_json(folder / name, _FIXED[name] | values | {"processor_class": "Molmo2Processor"})
    shutil.copyfile(pathlib.Path(__file__).with_name(TEMPLATE), folder / TEMPLATE)
    (folder / TOKENIZER).write_text(tok.to_json(), encoding="utf-8")
    ids = {"bos_token": tok.bos_id, "eos_token": tok.eos_id, "pad_token": _pad_id(tok)}
    write_json(folder / GENERATION, {f"{role}_id": i for role, i in ids.items()})
    tokenizer_config = {
        # The class that uses tokenizer.json as it is; those named after models build a new one from its vocabulary.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "Molmo2Processor",
        "padding_side": "left",
        "add_bos_token": False,  # the processor adds it
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / TOKENIZER_CONFIG, tokenizer_config | {role: tok.decode([i]) for role, i in ids.items()})


def copy_processor(source: pathlib.Path, target: pathlib.Path) -> list[str]:
    """Copies the processor's files of a directory, without their `auto_map`, and returns their names.

    Raises:
      HfError: the tokenizer or the processor's config is missing.
    """
    for name in (TOKENIZER, PROCESSOR):
        if not (source / name).is_file():
            raise HfError(f"{source / name}: no such file; this directory holds no processor")
    names = [name for name in FILES if (source / name).is_file()]
    for name in names:
        text = (source / name).read_text(encoding="utf-8")
        if name.endswith(".json") and AUTO_MAP in text:
            values = json.loads(text)
            write_json(target / name, {key: value for key, value in values.items() if key != AUTO_MAP})
        else:
            shutil.copyfile(source / name, target / name)
    return names


def read_processor(folder: pathlib.Path) -> ProcessorSettings:
    """The settings with which data_pipelines does what the processor of a directory does.

    Raises:
      HfError: a file or key is missing, or has a value that data_pipelines does not support. Names file and key.
    """
    whole = read_json(folder / PROCESSOR)
    found = {name: whole[key] if key in whole else read_json(folder / name) for name, key in NESTED.items()}
    for name, values in (found | {PROCESSOR: whole}).items():
        _check_values(values, _FIXED[name], folder / name)
    frames = _required(whole, "use_frame_special_tokens", folder / PROCESSOR)
    return ProcessorSettings(
        max_crops=int(_required(found[IMAGES], "max_crops", folder / IMAGES)),
        max_frames=int(_required(found[VIDEOS], "num_frames", folder / VIDEOS)),
        fps=float(_required(found[VIDEOS], "max_fps", folder / VIDEOS)),
        frame_tokens="frame" if frames else "im",
    )


def _pad_id(tok: Tokenizer) -> int:
    for name in _PAD_TOKENS:
        with contextlib.suppress(ValueError):
            return tok.special(name)
    return tok.eos_id


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object, its keys sorted."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The JSON object of a file. Raises HfError if it is missing or not a JSON object."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HfError(f"{path}: no such file; it defines how media become tokens") from error
    except json.JSONDecodeError as error:
        raise HfError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise HfError(f"{path}: not an object")
    return values


def _required(values: Mapping[str, Any], key: str, path: pathlib.Path) -> Any:
    if values.get(key) is None:
        raise HfError(f"{path} has no {key!r}")
    return values[key]


def _check_values(values: Mapping[str, Any], fixed: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises HfError unless every value is the one that data_pipelines has."""
    present = {key: _required(values, key, path) for key in fixed}
    present |= {key: values[key] for key in _OPTIONAL if values.get(key) is not None}
    for key, expected in (_OPTIONAL | fixed).items():
        if key in present and present[key] != expected:
            raise HfError(f"{path}: {key} is {present[key]!r}; only {expected!r} is possible here")
