"""The code that an export takes along, so that vLLM can serve it.

vLLM has a Molmo2 of its own and takes from the directory that it serves what transformers 5.19 does not have: a
configuration whose sections are objects, and a processor. It is told so by `--trust-remote-code`. transformers 5.23 has
both of its own, and leaves these files alone.

    config.json  preprocessor_config.json  ...       "auto_map": {"AutoConfig": "configuration_molmo2.Molmo2Config"}
    configuration_molmo2.py  processing_molmo2.py    from remote/
    views_molmo2.py                                  data/views.py: how training cuts images and pools patches
"""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from molmo2_jax.data import views
from molmo2_jax.hf.processor import CODE, IMAGES, NESTED, PROCESSOR, VIDEOS
from molmo2_jax.hf.source import CONFIG

_REMOTE = pathlib.Path(__file__).with_name("remote")
_CONFIGURATION = {"configuration_molmo2.py": _REMOTE / "configuration_molmo2.py"}
_PROCESSING = {
    "processing_molmo2.py": _REMOTE / "processing_molmo2.py",
    "views_molmo2.py": pathlib.Path(views.__file__),
}
_CLASSES = {  # file -> the class that transformers looks for, and ours
    CONFIG: {"AutoConfig": "configuration_molmo2.Molmo2Config"},
    IMAGES: {"AutoImageProcessor": "processing_molmo2.Molmo2ImageProcessor"},
    VIDEOS: {"AutoVideoProcessor": "processing_molmo2.Molmo2VideoProcessor"},
    PROCESSOR: {"AutoProcessor": "processing_molmo2.Molmo2Processor"},
}


def write_code(folder: pathlib.Path) -> None:
    """Puts the files beside those of a directory and names their classes in these; without a processor the config's."""
    has_processor = (folder / PROCESSOR).is_file()
    for name, source in (_CONFIGURATION | (_PROCESSING if has_processor else {})).items():
        shutil.copyfile(source, folder / name)
    with _changed(folder / CONFIG) as config:
        config[CODE] = _CLASSES[CONFIG]
    if not has_processor:
        return
    with _changed(folder / PROCESSOR) as whole:
        whole[CODE] = _CLASSES[PROCESSOR]
        for name, section in NESTED.items():
            if section in whole:  # once more in a file of its own, where vLLM looks for its loader of videos
                (folder / name).write_text(json.dumps(whole[section]), encoding="utf-8")
        frames = whole.get("use_frame_special_tokens", True)  # transformers' default
    for name in NESTED:
        with _changed(folder / name) as values:
            values[CODE] = _CLASSES[name]
    with _changed(folder / CONFIG) as config:  # the processor's, once more: configuration_molmo2.py has the reason
        config["use_frame_special_tokens"] = frames


@contextlib.contextmanager
def _changed(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The values of a JSON file, which is written anew with what they are at the end."""
    values = json.loads(path.read_text(encoding="utf-8"))
    yield values
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
