"""The processor and configuration that are written with an export, compared with those of transformers."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoProcessor, dynamic_module_utils
from transformers.image_utils import load_image
from transformers.video_utils import VideoMetadata

from data_pipelines.media.video import decode_frames
from molmo2_jax.weights.hf.config import write_config
from molmo2_jax.weights.hf.export_code import write_code
from molmo2_jax.weights.hf.processor import ProcessorSettings, write_processor
from tests.molmo2_jax.models.small import small
from tests.parity.photos import PHOTOS

pytestmark = pytest.mark.usefixtures("one_resize", "modules")
FRAMES = np.zeros((2, 120, 120, 3), np.uint8)
QUESTION = "<|im_start|>user\nHow many? 你好<|im_end|>\n<|im_start|>assistant\n"


def clip_metadata(total, chosen):
    """The frames with these indices, of a file of `total` frames at 25 per second."""
    return VideoMetadata(total_num_frames=total, fps=25.0, frames_indices=chosen)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The folder that transformers copies code to before it imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        patch.setattr(sys, "path", sys.path.copy())  # transformers adds that folder to it
        yield


@pytest.fixture(scope="module")
def export(tmp_path_factory, tokenizer):
    """export(frame_tokens): the files of a directory, without weights."""

    def make(frame_tokens):
        folder = tmp_path_factory.mktemp("export")
        write_processor(
            folder, tokenizer, ProcessorSettings(max_crops=8, max_frames=8, fps=2.0, frame_tokens=frame_tokens)
        )
        config = write_config(small(vocab=151_936), 4096, "float32")
        (folder / "config.json").write_text(json.dumps(config))
        write_code(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def both(modules, export):
    """{frame_tokens: (the export's processor, transformers')}."""

    def load(folder):
        ours, theirs = (AutoProcessor.from_pretrained(folder, trust_remote_code=trust) for trust in (True, False))
        assert "transformers_modules" in type(ours).__module__
        assert type(theirs).__module__ == "transformers.models.molmo2.processing_molmo2"
        return ours, theirs

    return {frame_tokens: load(export(frame_tokens)) for frame_tokens in ("im", "frame")}


def agree(ours, theirs, kind, patches):
    """Asserts that every tensor of both is equal. Patch ids in our pooling start at 0 for each medium."""
    starts = np.concatenate([[0], np.cumsum(patches)[:-1]])
    lengths = theirs.pop(f"{kind}_lengths")
    pooling = ours[f"{kind}_token_pooling"]
    starts = torch.from_numpy(np.repeat(starts, lengths))[:, None]
    assert torch.equal(torch.where(pooling < 0, pooling, pooling + starts), theirs[f"{kind}_token_pooling"])
    names = set(ours) & set(theirs) - {f"{kind}_token_pooling"}
    assert {"input_ids", "attention_mask", f"{kind}_grids"} < names
    for name in names:
        assert ours[name].shape == theirs[name].shape, name
        assert (ours[name] - theirs[name]).abs().max() <= 1e-6, name


def call(processor, text, images):
    return processor(text=text, images=images, return_tensors="pt")


def images_agree(both, text, images):
    ours, theirs = (call(processor, text, images) for processor in both)
    grids = theirs["image_grids"]
    theirs["image_lengths"] = (grids[:, 0] * grids[:, 1] + grids[:, 2] * grids[:, 3]).tolist()
    agree(ours, theirs, "image", 729 * ours["image_num_crops"].numpy())


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photograph(both, photos, name):
    upright = load_image(str(photos[name]))  # in RGB, as transformers expects it
    images_agree(both["im"], f"<|image|>{QUESTION}", [upright])
    opened, upright = (call(both["im"][0], "<|image|>", [image]) for image in (Image.open(photos[name]), upright))
    assert torch.equal(opened["pixel_values"], upright["pixel_values"])


def test_several_photographs(both, photos):
    images = [load_image(str(photos[name])) for name in ("frame.png", "rotated.jpg", "tiny.png")]
    images_agree(both["im"], f"Image 1<|image|>Image 2<|image|>Image 3<|image|>{QUESTION}", images)


def test_pixels_instead_of_a_file(both, photos):
    image = Image.open(photos["frame.png"])
    pixels, opened = (call(both["im"][0], f"<|image|>{QUESTION}", [x]) for x in (np.asarray(image), image))
    assert torch.equal(pixels["pixel_values"], opened["pixel_values"])


@pytest.mark.parametrize("text", [QUESTION, [QUESTION], f"<|im_end|>{QUESTION}"])
def test_text_alone(both, text):
    ours, theirs = (processor(text=text, return_tensors="pt") for processor in both["im"])
    assert torch.equal(ours["input_ids"], theirs["input_ids"])


def test_without_bos_eos_stands_for_it(export):
    folder = export("im")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bos_token": None}))
    processors = [AutoProcessor.from_pretrained(folder, trust_remote_code=trust) for trust in (True, False)]
    assert [processor.tokenizer.bos_token for processor in processors] == [None, None]
    ours, theirs = (processor(text="hi", return_tensors="pt")["input_ids"].tolist() for processor in processors)
    assert ours == theirs and ours[0][0] == processors[0].tokenizer.eos_token_id
    chat = processors[0].apply_chat_template([{"role": "user", "content": "hi"}])
    assert chat.startswith("<|im_end|><|im_start|>user")


def test_a_layout_other_than_that_of_training_is_refused(export):
    folder = export("im")
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"image_use_col_tokens": False}))
    with pytest.raises(ValueError, match=r"are \(False, False, True, False\)"):
        AutoProcessor.from_pretrained(folder, trust_remote_code=True)


def test_damaged_exif_is_ignored(both, photos):
    image = Image.open(photos["frame.png"]).convert("RGB")
    plain = call(both["im"][0], "<|image|>", [image.copy()])
    image.info["exif"] = b"Exif\x00\x00nonsense"
    assert torch.equal(call(both["im"][0], "<|image|>", [image])["pixel_values"], plain["pixel_values"])


@pytest.mark.parametrize("frame_tokens", ["im", "frame"])
def test_a_clip(both, street_video, frame_tokens):
    chosen = [0, 12, 25, 37, 49]
    clip = np.stack(list(decode_frames(street_video, np.array(chosen) / 25)))
    metadata = VideoMetadata(total_num_frames=250, fps=25.0, frames_indices=chosen)
    ours, theirs = (
        processor(
            text=f"<|video|>{QUESTION}",
            videos=[clip],
            video_metadata=[metadata],
            do_sample_frames=False,
            return_tensors="pt",
        )
        for processor in both[frame_tokens]
    )
    theirs["video_lengths"] = [81 * len(chosen)]
    agree(ours, theirs, "video", [729 * len(chosen)])


@pytest.mark.parametrize(
    ("frames", "fps", "chosen"),
    [
        (1, 25.0, [0]),
        (2, 25.0, [0, 1]),
        (26, 25.0, [0, 12, 25]),
        (41, 25.0, [0, 12, 25, 38, 40]),  # 12.5 and 37.5 are rounded to even
        (88, 25.0, [0, 12, 24, 37, 49, 62, 74, 87]),  # 3.52 s, over 7 half seconds: 8 frames, both ends included
        (250, 25.0, [0, 35, 71, 106, 142, 177, 213, 249]),
        (5, 1.0, [0, 1, 2, 3, 4]),
    ],
)
def test_frames_that_are_chosen(both, frames, fps, chosen):
    assert both["im"][0].video_processor.sample(frames, fps).tolist() == chosen


def test_frames_are_chosen_when_asked(both):
    clip = np.random.default_rng(0).integers(0, 256, (41, 30, 40, 3), np.uint8)
    metadata = VideoMetadata(total_num_frames=41, fps=25.0)
    found = both["im"][0](text="<|video|>", videos=[clip], video_metadata=[metadata], do_sample_frames=True)
    assert found["video_grids"].tolist() == [[5, 9, 9]]
    assert " 1.5 <im_start>" in both["im"][0].tokenizer.decode(found["input_ids"][0])


def test_fewer_crops_for_a_request(both, photos):
    image = Image.open(photos["large.jpg"])
    assert both["im"][0](text="<|image|>", images=[image], max_crops=1)["image_num_crops"].tolist() == [2]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"text": "<|image|><|image|>", "images": [np.zeros((9, 9, 3), np.uint8)]}, r"2 <\|image\|> in the text for 1"),
        ({"text": "<|image|>", "images": [np.zeros((9, 9, 3))]}, r"float64\[9, 9, 3\]"),
        ({"text": "<|image|>", "images": [Image.new("I", (9, 9))]}, "more than 8 bits per pixel"),
        ({"text": "<|image|>", "images": Image.new("RGB", (9, 9)), "max_crops": 0}, "at most 0 crops"),
        ({"text": "<|image|>"}, r"1 <\|image\|> in the text for 0"),
        ({"text": "<|video|>", "videos": [FRAMES], "video_metadata": [None]}, "needs metadata with fps"),
        (
            {"text": "<|video|>", "videos": [FRAMES], "video_metadata": [clip_metadata(2, [0])]},
            "2 frames, but .* for 1",
        ),
        (
            {
                "text": "<|video|>",
                "videos": [FRAMES],
                "video_metadata": [clip_metadata(9, None)],
                "do_sample_frames": True,
            },
            "needs all 9 of its file; it has 2",
        ),
        ({"text": "hi", "truncation": True}, "truncation=True"),
        ({"text": "hi", "return_tensors": "np"}, "return_tensors='np'"),
    ],
)
def test_impossible_inputs_are_refused(both, inputs, message):
    with pytest.raises(ValueError, match=message):
        both["im"][0](**inputs)


@pytest.mark.parametrize(("frame_tokens", "start"), [("im", "<im_start>"), ("frame", "<frame_start>")])
def test_the_configuration_has_objects_for_sections(export, tokenizer, frame_tokens, start):
    config = AutoConfig.from_pretrained(export(frame_tokens), trust_remote_code=True)
    c = small(vocab=151_936)
    assert config.vit_config.hidden_size == c.vit.width and config.adapter_config.text_hidden_size == c.llm.width
    assert config.text_config.rope_theta == c.llm.rope_theta
    assert config.frame_start_token_id == tokenizer.special(
        start
    )  # vLLM puts a frame's features between it and the end token
    assert type(config).__name__ == "Molmo2Config" and type(config)().model_type == "molmo2"
