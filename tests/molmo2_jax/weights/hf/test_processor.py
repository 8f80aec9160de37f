"""Files of a processor: writing, reading back, errors. Compared with transformers: tests/parity/test_processor.py."""

import json

import pytest
import tokenizers

from data_pipelines.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from molmo2_jax.weights.hf.config import HfError
from molmo2_jax.weights.hf.processor import FILES, ProcessorSettings, copy_processor, read_processor, write_processor
from tests.data_pipelines.text.test_tokenizer import small_base

RELEASED = ProcessorSettings(max_crops=8, max_frames=384, fps=2.0, frame_tokens="im")
IMAGES, VIDEOS, PROCESSOR = "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"


@pytest.fixture
def small(tmp_path):
    """A tokenizer of 256 bytes and 4 added tokens, for an embedding of 270 rows."""
    source = tmp_path / "source"
    source.mkdir()
    small_base().save(str(source / "tokenizer.json"))
    return Tokenizer.load(str(source), 270)


@pytest.fixture
def written(tmp_path, small):
    folder = tmp_path / "written"
    folder.mkdir()
    write_processor(folder, small, RELEASED)
    return folder


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def change(path, **values):
    path.write_text(json.dumps(load(path) | values))


def without(path, key):
    path.write_text(json.dumps({k: v for k, v in load(path).items() if k != key}))


def test_values_are_those_of_the_released_repositories(written):
    assert load(written / IMAGES) == {
        "do_convert_rgb": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "Molmo2ImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "max_crops": 8,
        "overlap_margins": [4, 4],
        "patch_size": 14,
        "pooling_size": [2, 2],
        "processor_class": "Molmo2Processor",
        "resample": 2,
        "size": {"height": 378, "width": 378},
    }
    assert load(written / VIDEOS) == {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "do_sample_frames": True,
        "frame_sample_mode": "uniform_last_frame",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "max_fps": 2,
        "num_frames": 384,
        "patch_size": 14,
        "pooling_size": [3, 3],
        "processor_class": "Molmo2Processor",
        "resample": 2,
        "rescale_factor": 1 / 255,
        "sampling_fps": 2,
        "size": {"height": 378, "width": 378},
        "video_processor_type": "Molmo2VideoProcessor",
    }
    assert load(written / PROCESSOR) == {
        "image_use_col_tokens": True,
        "processor_class": "Molmo2Processor",
        "use_frame_special_tokens": False,
        "use_single_crop_col_tokens": False,
        "use_single_crop_start_token": True,
        "video_use_col_tokens": False,
    }
    assert load(written / "generation_config.json") == {"bos_token_id": 258, "eos_token_id": 258, "pad_token_id": 258}
    tokenizer = load(written / "tokenizer_config.json")
    assert [tokenizer[f"{role}_token"] for role in ("bos", "eos", "pad")] == ["<|im_end|>"] * 3
    assert (tokenizer["padding_side"], tokenizer["add_bos_token"]) == ("left", False)
    assert {path.name for path in written.iterdir()} < set(FILES)


def test_a_tokenizer_with_bos_and_padding_keeps_them(tmp_path):
    base = small_base()
    base.add_special_tokens(["<|endoftext|>", "<|pad|>"])  # 260, 261
    base.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", 256)]
    )
    base.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<|bos|>"}')
    folder = tmp_path / "written"
    folder.mkdir()
    write_processor(folder, Tokenizer.load(str(tmp_path), 270), RELEASED)
    assert load(folder / "generation_config.json") == {"bos_token_id": 256, "eos_token_id": 258, "pad_token_id": 261}
    read = Tokenizer.load(str(folder), 270)
    assert (read.bos_id, read.eos_id) == (256, 258)
    # The processor adds BOS: a tokenizer that adds it, too, would give two.
    assert tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a").ids == [97]


def test_the_tokenizer_reads_back_unchanged(written, small):
    read = Tokenizer.load(str(written), 270)
    for name in (*SPECIAL_TOKENS, "<|bos|>", "<|im_start|>", "<|im_end|>", "<think>"):
        assert read.special(name) == small.special(name)
    assert (read.bos_id, read.eos_id) == (small.bos_id, small.eos_id)
    for text in ("Point to the cars. 你好", "<im_patch><|im_end|> |<EXTRA_TOKENS_3>|"):
        assert read.encode(text) == small.encode(text)
        assert read.decode(read.encode(text)) == text
    with pytest.raises(ValueError, match="vocab_size is 269"):
        Tokenizer.load(str(written), 269)


@pytest.mark.parametrize("settings", [RELEASED, ProcessorSettings(24, 128, 10.0, "frame")])
def test_settings_read_back(written, small, settings):
    write_processor(written, small, settings)
    assert read_processor(written) == settings


def test_one_nested_file_as_transformers_5_writes_it_is_read(written):
    nested = load(written / PROCESSOR)
    for name, key in ((IMAGES, "image_processor"), (VIDEOS, "video_processor")):
        nested[key] = load(written / name) | {"do_rescale": True, "rescale_factor": 1 / 255, "do_resize": None}
        (written / name).unlink()
    nested["video_processor"]["num_frames"] = 64
    (written / PROCESSOR).write_text(json.dumps(nested))
    assert read_processor(written) == ProcessorSettings(8, 64, 2.0, "im")


@pytest.mark.parametrize(
    ("file", "key", "value", "only"),
    [
        (IMAGES, "size", {"height": 336, "width": 336}, r"\{'height': 378, 'width': 378\}"),
        (IMAGES, "image_mean", [0.48145466, 0.4578275, 0.40821073], r"\[0.5, 0.5, 0.5\]"),
        (IMAGES, "image_std", [0.5, 0.5, 0.4], r"\[0.5, 0.5, 0.5\]"),
        (IMAGES, "patch_size", 16, "14"),
        (IMAGES, "pooling_size", [3, 3], r"\[2, 2\]"),
        (IMAGES, "overlap_margins", [0, 0], r"\[4, 4\]"),
        (IMAGES, "resample", 3, "2"),
        (IMAGES, "do_rescale", False, "True"),
        (IMAGES, "rescale_factor", 1 / 256, "0.0039"),
        (VIDEOS, "pooling_size", [2, 2], r"\[3, 3\]"),
        (VIDEOS, "frame_sample_mode", "fps", "'uniform_last_frame'"),
        (VIDEOS, "do_sample_frames", False, "True"),
        (PROCESSOR, "use_single_crop_col_tokens", True, "False"),
        (PROCESSOR, "image_use_col_tokens", False, "True"),
        (PROCESSOR, "use_single_crop_start_token", False, "True"),
        (PROCESSOR, "video_use_col_tokens", True, "False"),
    ],
)
def test_an_unsupported_value_is_named(written, file, key, value, only):
    change(written / file, **{key: value})
    with pytest.raises(HfError, match=rf"written/{file}: {key} is .*; only {only}.* is possible here"):
        read_processor(written)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        (IMAGES, "max_crops"),
        (IMAGES, "pooling_size"),
        (VIDEOS, "num_frames"),
        (VIDEOS, "max_fps"),
        (VIDEOS, "do_normalize"),  # transformers would leave frames as bytes
        (PROCESSOR, "use_frame_special_tokens"),
        (PROCESSOR, "use_single_crop_col_tokens"),  # transformers would use that of the grid
    ],
)
def test_a_missing_key_is_named(written, file, key):
    without(written / file, key)
    with pytest.raises(HfError, match=rf"written/{file} has no '{key}'"):
        read_processor(written)


def test_files_that_are_missing_or_broken_are_named(written):
    (written / IMAGES).write_text("[]")
    with pytest.raises(HfError, match=rf"written/{IMAGES}: not an object"):
        read_processor(written)
    (written / IMAGES).write_text("{")
    with pytest.raises(HfError, match=rf"written/{IMAGES}: not JSON"):
        read_processor(written)
    (written / IMAGES).unlink()
    with pytest.raises(HfError, match=rf"written/{IMAGES}: no such file"):
        read_processor(written)


def test_settings_that_no_processor_can_express_are_refused(tmp_path, small):
    with pytest.raises(HfError, match=r"fps = 1\.5: a processor samples a whole number"):
        write_processor(tmp_path, small, ProcessorSettings(8, 384, 1.5, "im"))
    with pytest.raises(HfError, match="frame_tokens is 'video', not one of"):
        write_processor(tmp_path, small, ProcessorSettings(8, 384, 2.0, "video"))


def test_a_processor_is_copied_unchanged(written, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    change(written / IMAGES, auto_map={"AutoProcessor": "processing_molmo2.Molmo2Processor"})
    (written / "processing_molmo2.py").write_text("# code")
    (written / "config.json").write_text("{}")
    (written / "model.safetensors").write_text("")
    copied = copy_processor(written, target)
    assert set(copied) == {path.name for path in target.iterdir()}
    left = {"config.json", "model.safetensors", "processing_molmo2.py"}
    assert set(copied) == {path.name for path in written.iterdir()} - left
    for name in set(copied) - {IMAGES}:
        assert (target / name).read_bytes() == (written / name).read_bytes()
    # Code is not copied, so nothing may name it.
    expected = json.loads((written / IMAGES).read_text())
    assert expected.pop("auto_map") and json.loads((target / IMAGES).read_text()) == expected


@pytest.mark.parametrize("name", ["tokenizer.json", PROCESSOR])
def test_half_a_processor_is_not_copied(written, tmp_path, name):
    (written / name).unlink()
    with pytest.raises(HfError, match=rf"written/{name}: no such file; this directory holds no processor"):
        copy_processor(written, tmp_path)
    assert not (tmp_path / PROCESSOR).exists()
