"""The code that an export takes along, so that vLLM can serve it.

vLLM has a Molmo2 of its own and takes from the directory that it serves what transformers up to 5.19 does not have: a
configuration with the released names, and a processor. `--trust-remote-code` lets it. transformers from 5.20 on has
others of its own, and leaves these files alone unless it is told to trust them.

    config.json  preprocessor_config.json  ...       "auto_map": {"AutoConfig": "configuration_molmo2.Molmo2Config"}
    configuration_molmo2.py  processing_molmo2.py    from remote/
    views_molmo2.py                                  data/views.py: how training cuts images and pools patches
"""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from molmo2_jax.data import views
from molmo2_jax.hf.processor import CODE, IMAGES, NESTED, PROCESSOR, VIDEOS, read_json, write_json
from molmo2_jax.hf.source import CONFIG

_REMOTE = pathlib.Path(__file__).with_name("remote")
_CLASSES = {  # file -> the class that transformers looks for, and ours
    CONFIG: {"AutoConfig": "configuration_molmo2.Molmo2Config"},
    IMAGES: {"AutoImageProcessor": "processing_molmo2.Molmo2ImageProcessor"},
    VIDEOS: {"AutoVideoProcessor": "processing_molmo2.Molmo2VideoProcessor"},
    PROCESSOR: {"AutoProcessor": "processing_molmo2.Molmo2Processor"},
}


def write_code(folder: pathlib.Path) -> None:
    """Puts the files beside those of a directory and names their classes in these; without a processor the config's.

    Raises:
      HfError: one of the directory's files is no JSON object; names it.
    """
    shutil.copy(_REMOTE / "configuration_molmo2.py", folder)
    added = {CODE: _CLASSES[CONFIG]}
    if (folder / PROCESSOR).is_file():
        shutil.copy(_REMOTE / "processing_molmo2.py", folder)
        shutil.copyfile(views.__file__, folder / "views_molmo2.py")
        whole = _add(folder / PROCESSOR, {CODE: _CLASSES[PROCESSOR]})
        for name, section in NESTED.items():
            if section in whole:  # once more in a file of its own, where vLLM looks for its loader of videos
                write_json(folder / name, whole[section])
            if (folder / name).is_file():
                _add(folder / name, {CODE: _CLASSES[name]})
        # The processor's, once more (configuration_molmo2.py has the reason); True is transformers' default.
        added["use_frame_special_tokens"] = whole.get("use_frame_special_tokens", True)
    _add(folder / CONFIG, added)


def _add(path: pathlib.Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Adds keys to a JSON file; returns all that it says now."""
    values = read_json(path) | values
    write_json(path, values)
    return values
