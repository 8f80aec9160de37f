"""The code in an export: its files, and the JSON files that name it. What it computes: tests/parity/test_remote.py."""

import json
import pathlib

from data_pipelines.media import crops
from molmo2_jax.weights.hf.config import read_config, write_config
from molmo2_jax.weights.hf.export_code import write_code
from molmo2_jax.weights.hf.processor import ProcessorSettings, read_processor, write_processor
from tests.molmo2_jax.models.small import small

SETTINGS = ProcessorSettings(max_crops=8, max_frames=384, fps=2.0, frame_tokens="frame")


def export(folder, tokenizer=None):
    (folder / "config.json").write_text(json.dumps(write_config(small(vocab=151_936), 4096, "float32")))
    if tokenizer is not None:
        write_processor(folder, tokenizer, SETTINGS)
    return folder


def read(path):
    return json.loads(path.read_text())


def test_files_name_the_classes_next_to_them(tmp_path, tokenizer):
    folder = export(tmp_path, tokenizer)
    write_code(folder)
    named = {path.name: read(path)["auto_map"] for path in folder.glob("*.json") if "auto_map" in path.read_text()}
    assert set(named) == {
        "config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "video_preprocessor_config.json",
    }
    for classes in named.values():
        for name in classes.values():
            module, _, class_name = name.partition(".")
            assert f"class {class_name}(" in (folder / f"{module}.py").read_text()
    assert (folder / "crops_molmo2.py").read_bytes() == pathlib.Path(crops.__file__).read_bytes()
    for name in ("pooling_molmo2.py", "token_counts_molmo2.py"):
        text = (folder / name).read_text()
        assert "import data_pipelines" not in text and "from data_pipelines" not in text
        assert "\nfrom .crops_molmo2 import " in text


def test_other_values_are_kept(tmp_path, tokenizer):
    folder = export(tmp_path, tokenizer)
    before = read_config(read(folder / "config.json"), "config")
    write_code(folder)
    assert read_config(read(folder / "config.json"), "config") == before
    assert read(folder / "config.json")["use_frame_special_tokens"] is True  # the processor's value
    assert read_processor(folder) == SETTINGS


def test_processors_in_one_file(tmp_path, tokenizer):
    folder = export(tmp_path, tokenizer)
    whole = read(folder / "processor_config.json")
    for name, section in (("preprocessor_config", "image_processor"), ("video_preprocessor_config", "video_processor")):
        whole[section] = read(folder / f"{name}.json")
        (folder / f"{name}.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps(whole))
    write_code(folder)
    whole = read(folder / "processor_config.json")
    assert set(whole["auto_map"]) == {"AutoProcessor"}
    for name, section in (("preprocessor_config", "image_processor"), ("video_preprocessor_config", "video_processor")):
        alone = read(folder / f"{name}.json")
        (named,) = alone.pop("auto_map")
        assert named.lower() == f"auto{section}".replace("_", "")
        assert alone == whole[section]


def test_a_processor_without_videos(tmp_path, tokenizer):
    folder = export(tmp_path, tokenizer)
    (folder / "video_preprocessor_config.json").unlink()
    write_code(folder)
    assert not (folder / "video_preprocessor_config.json").exists()
    assert "auto_map" in read(folder / "preprocessor_config.json")


def test_weights_without_a_processor(tmp_path):
    folder = export(tmp_path)
    write_code(folder)
    assert set(read(folder / "config.json")["auto_map"]) == {"AutoConfig"}
    assert "use_frame_special_tokens" not in read(folder / "config.json")
    assert {path.name for path in folder.iterdir()} == {"config.json", "configuration_molmo2.py"}
