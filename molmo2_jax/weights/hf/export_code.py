"""The code that is written with an export, so that vLLM can serve it.

vLLM has its own implementation of the model, but loads from the directory what transformers up to 5.19 does not have: a
configuration class with the released names, and a processor. This needs `--trust-remote-code`. transformers from 5.20
on has both, and ignores these files unless `trust_remote_code` is set.

    config.json  preprocessor_config.json  ...       "auto_map": {"AutoConfig": "configuration_molmo2.Molmo2Config"}
    configuration_molmo2.py  processing_molmo2.py    from remote/
    crops_molmo2.py      pooling_molmo2.py           data_pipelines/media/: crops.py, pooling.py,
    token_counts_molmo2.py                           token_counts.py
"""

import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

from data_pipelines.media import crops, pooling, token_counts
from molmo2_jax.weights.hf.processor import AUTO_MAP, IMAGES, NESTED, PROCESSOR, VIDEOS, read_json, write_json
from molmo2_jax.weights.hf.source import CONFIG

_REMOTE = pathlib.Path(__file__).with_name("remote")
_SIBLING = re.compile(r"^from data_pipelines\.media\.(\w+) import ", re.MULTILINE)
_CLASSES = {  # file -> {class that transformers looks for: class in remote/}
    CONFIG: {"AutoConfig": "configuration_molmo2.Molmo2Config"},
    IMAGES: {"AutoImageProcessor": "processing_molmo2.Molmo2ImageProcessor"},
    VIDEOS: {"AutoVideoProcessor": "processing_molmo2.Molmo2VideoProcessor"},
    PROCESSOR: {"AutoProcessor": "processing_molmo2.Molmo2Processor"},
}


def write_code(folder: pathlib.Path) -> None:
    """Adds the code to a directory and names its classes in the JSON files; without a processor, only the config's.

    Raises:
      HfError: one of the directory's files is not a JSON object; names it.
    """
    shutil.copy(_REMOTE / "configuration_molmo2.py", folder)
    added = {AUTO_MAP: _CLASSES[CONFIG]}
    if (folder / PROCESSOR).is_file():
        shutil.copy(_REMOTE / "processing_molmo2.py", folder)
        for module in (crops, pooling, token_counts):
            text = pathlib.Path(module.__file__).read_text(encoding="utf-8")
            text = _SIBLING.sub(r"from .\1_molmo2 import ", text)
            (folder / f"{module.__name__.rpartition('.')[2]}_molmo2.py").write_text(text, encoding="utf-8")
        whole = _add_keys(folder / PROCESSOR, {AUTO_MAP: _CLASSES[PROCESSOR]})
        for name, section in NESTED.items():
            if section in whole:  # also as a file of its own, where vLLM looks for the video loader's settings
                write_json(folder / name, whole[section])
            if (folder / name).is_file():
                _add_keys(folder / name, {AUTO_MAP: _CLASSES[name]})
        # Repeats the processor's value (configuration_molmo2.py says why); True is transformers' default.
        added["use_frame_special_tokens"] = whole.get("use_frame_special_tokens", True)
    _add_keys(folder / CONFIG, added)


def _add_keys(path: pathlib.Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Adds keys to a JSON file; returns its whole object."""
    values = read_json(path) | values
    write_json(path, values)
    return values
