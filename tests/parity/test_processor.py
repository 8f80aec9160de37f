"""Our prompts compared with transformers' Molmo2Processor, loaded from our files: text, tokens, crops, pooling.

Its images are as its `load_image` reads them: upright, RGB, without alpha. Both sides get the same frames of a video:
transformers 5.23 would sample frames 0, n/k, 2n/k, ... and never the last one, whereas the processors of the released
models and data_pipelines include the last one.
"""

import dataclasses
import itertools

import numpy as np
import pytest
from jinja2 import TemplateError
from transformers.image_utils import load_image
from transformers.models.molmo2.image_processing_molmo2 import compute_crop_geometry

from data_pipelines.media import crops
from data_pipelines.media.location import Location
from data_pipelines.media.medium import open_image, open_video
from data_pipelines.media.token_counts import token_grids
from data_pipelines.media.video import decode_frames
from data_pipelines.sequence import message_tree, visual_layout
from data_pipelines.sequence.example import describe_prompt
from data_pipelines.sequence.view_config import FRAME_TOKENS
from data_pipelines.text import chat_turns
from tests.parity.photos import PHOTOS

QUESTION = "Point to the cyclists.\nHow many are there? 你好 "


pytestmark = pytest.mark.usefixtures("one_resize")


class LaidOut:
    """A described prompt with its arrays and crops."""

    def __init__(self, example, tokenizer):
        vars(self).update(vars(example) | vars(example.lay_out(tokenizer, 1.0)))
        self.n_tokens, self.n_crops, self.pooling = example.n_tokens, example.n_crops, example.pooling

    def crops(self):
        return itertools.chain.from_iterable(plan.crops() for plan in self.media)


@pytest.fixture(scope="session")
def view(data_config):
    return data_config().view


@pytest.fixture(scope="session")
def ask(tokenizer, view):
    """Our example of a prompt about images, or without media."""

    def ask(*paths):
        media = tuple(open_image(Location.of(path)) for path in paths)
        return LaidOut(describe_prompt(QUESTION, media, tokenizer, view), tokenizer)

    return ask


def user_message(*images, text=QUESTION):
    """A message of the user about images, in the form that transformers' chat templates take."""
    parts = [{"type": "image", "image": load_image(str(path))} for path in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def process(processor, messages, **options):
    options = {"padding": True, **options}
    return processor.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        return_tensors="np",
        add_generation_prompt=True,
        processor_kwargs=options,
    )


def agree(tokenizer, ours, theirs, kind, side):
    """Asserts that an example equals transformers' inputs; `kind`: of the media, `side`: of the pooling windows."""
    suffix = {"image": "", "video": "_videos"}[kind]
    assert theirs["input_ids"].tolist() == [ours.tokens.tolist()]
    assert theirs["mm_token_type_ids"].tolist() == [ours.image_group.tolist()]
    patches = theirs["input_ids"][0] == tokenizer.special("<im_patch>")
    assert np.flatnonzero(patches).tolist() == ours.visual_slots.tolist()
    pooling = ours.pooling()
    assert theirs[f"{kind}_token_pooling"].tolist() == pooling[:, : side**2].tolist()
    assert (pooling[:, side**2 :] == -1).all()
    same_crops(np.stack(list(ours.crops())), theirs[f"pixel_values{suffix}"])


def same_crops(ours, theirs):
    """Asserts that uint8 crops equal float32 ones, which were normalised from bytes."""
    assert (ours.shape, theirs.dtype) == (theirs.shape, np.float32)
    assert np.abs(theirs - (ours.astype(np.float32) / 255 * 2 - 1)).max() < 1e-6


# Prompts


def test_text_alone(processor, ask):
    theirs = process(processor, [user_message()])
    assert theirs["input_ids"].tolist() == [ask().tokens.tolist()]
    assert not theirs["mm_token_type_ids"].any()


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photograph(processor, tokenizer, ask, photos, name):
    ours = ask(photos[name])
    theirs = process(processor, [user_message(photos[name])])
    agree(tokenizer, ours, theirs, "image", side=2)
    (plan,) = ours.media
    assert theirs["image_grids"].tolist() == [[n for grid in token_grids(plan.crop_grid) for n in grid]]
    assert theirs["image_num_crops"].tolist() == [plan.n_crops]


def test_three_images(processor, tokenizer, ask, photos):
    paths = [photos[name] for name in ("tall.jpg", "grey.png", "wide.jpg")]
    agree(tokenizer, ask(*paths), process(processor, [user_message(*paths)]), "image", side=2)


@pytest.mark.parametrize("frame_tokens", FRAME_TOKENS)
def test_a_video_of_eight_frames(processor, tokenizer, view, street_video, monkeypatch, frame_tokens):
    view = dataclasses.replace(view, frame_tokens=frame_tokens)
    media = (open_video(Location.of(street_video), (0.0, 3.4)),)
    ours = LaidOut(describe_prompt(QUESTION, media, tokenizer, view), tokenizer)
    (plan,) = ours.media
    assert len(plan.times) == 8 and plan.times[-1] == 3.4
    monkeypatch.setattr(processor, "use_frame_special_tokens", frame_tokens == "frame")
    # The clip has 25 frames per second and both sides write times with one digit, so an index determines the text.
    metadata = {"total_num_frames": 250, "fps": 25.0, "frames_indices": [round(25 * time) for time in plan.times]}
    frames = np.stack(list(decode_frames(street_video, plan.times)))
    template = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
    string = processor.apply_chat_template(template, add_generation_prompt=True)
    options = {"do_sample_frames": False, "video_metadata": [metadata], "return_tensors": "np"}
    theirs = processor(text=string, videos=[frames], **options)
    agree(tokenizer, ours, theirs, "video", side=3)
    assert theirs["video_grids"].tolist() == [[8, 9, 9]]


def test_a_batch_of_unequal_lengths_is_padded_on_the_left(processor, tokenizer, ask, photos):
    prompts = [(), (photos["small.png"],), (photos["wide.jpg"], photos["grey.png"])]
    examples = list(itertools.starmap(ask, prompts))
    theirs = process(processor, [[user_message(*images)] for images in prompts])
    longest = max(example.n_tokens for example in examples)
    assert theirs["input_ids"].shape == (3, longest)
    for example, ids, mask in zip(examples, theirs["input_ids"], theirs["attention_mask"], strict=True):
        padding = longest - example.n_tokens
        assert ids.tolist() == [tokenizer.special("<|endoftext|>")] * padding + example.tokens.tolist()
        assert mask.tolist() == [0] * padding + [1] * example.n_tokens
    same_crops(np.concatenate([list(e.crops()) for e in examples[1:]]), theirs["pixel_values"])
    # transformers counts patches through the batch, we count them from the start of every example.
    first_crops = np.cumsum([0] + [example.n_crops for example in examples])
    ours = [
        np.where(e.pooling() < 0, -1, e.pooling() + 729 * first)
        for e, first in zip(examples, first_crops, strict=False)
    ]
    assert theirs["image_token_pooling"].tolist() == np.concatenate(ours)[:, :4].tolist()


def test_several_turns(processor, tokenizer, photos, ask):
    path = photos["frame.png"]
    answers = ["Two.", "In the middle, on the left."]
    later = [{"role": "assistant", "content": answers[0]}, user_message(text="Where?")]
    later += [{"role": "assistant", "content": [{"type": "text", "text": answers[1]}]}, user_message(text=" And now? ")]
    theirs = process(processor, [user_message(path), *later])
    turns = [
        message_tree.Turn(
            message_tree.ROOT,
            chat_turns.user_turn(tokenizer, QUESTION, first=True),
            tokenizer.encode(answers[0]),
            None,
            1.0,
        ),
        message_tree.Turn(
            0, chat_turns.user_turn(tokenizer, "Where?", first=False), tokenizer.encode(answers[1]), None, 1.0
        ),
        message_tree.Turn(1, chat_turns.user_turn(tokenizer, " And now? ", first=False), None, None, 1.0),
    ]
    bodies = [turn.user + (turn.answer or []) for turn in turns]
    before = ask(path).tokens[: -len(turns[0].user)].tolist()  # BOS and the image
    assert theirs["input_ids"].tolist() == [before + list(itertools.chain(*bodies))]
    # Training has an EOS after every answer; the released template has none after an answer that other turns follow.
    (plan,) = ask(path).media
    visual = visual_layout.images_layout([plan.crop_grid], tokenizer, "example").tokens(tokenizer)
    eos = tokenizer.eos_id
    trained = message_tree.lay_out(visual, turns, bos=eos, eos=eos, length_weight=4.0, never_targets=[]).tokens.tolist()
    assert trained == [*before, *bodies[0], eos, *bodies[1], eos, *bodies[2]]


# Chat strings


def text(content, **more):
    return {"type": "text", "text": content, **more}


def conversation(*contents):
    """Messages of user and assistant in turns."""
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


SUBTITLE = {"role": "subtitle", "content": "subtitle\n0.0 - 1.0 Hello.\n"}
ONE, TWO = "<|im_start|>user\nQ1<|im_end|>\n", "<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n"
BOTH = f"{ONE}<|im_start|>assistant\nA1{TWO}"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (conversation("Q1"), ONE),
        (conversation("Q1", "A1", "Q2"), BOTH),
        (conversation([text("Q1")], [text("A1")], [text("Q2")]), BOTH),
        # Media are moved before the first turn, whatever their turn; only several images are numbered.
        (conversation([text("Q1"), {"type": "image"}]), f"<|image|>{ONE}"),
        (conversation([{"type": "image_url", "image_url": "a.png"}, text("Q1")]), f"<|image|>{ONE}"),
        (
            conversation([text("Q1"), {"type": "image"}], "A1", [{"image": "b.png"}, text("Q2")]),
            f"Image 1<|image|>Image 2<|image|>{BOTH}",
        ),
        (conversation([{"type": "video"}, text("Q1")]), f"<|video|>{ONE}"),
        (conversation([{"video": "a.mp4"}, text("Q1"), {"type": "image"}]), f"<|image|><|video|>{ONE}"),
        ([SUBTITLE, *conversation([{"type": "video"}, text("Q1")])], f"<|video|>{SUBTITLE['content']}{ONE}"),
        # Styles are written before the text, except those of demonstrations.
        (conversation([text("1", style="vqa2")]), ONE.replace("Q1", "vqa2: 1")),
        (
            conversation([text(" A\n", style="video_point"), text("B", style="doc_qa")]),
            ONE.replace("Q1", " A\n doc_qa: B"),
        ),
    ],
)
def test_chat_strings_are_those_of_the_released_template(processor, messages, expected):
    # With BOS, which the released template leaves to processors: vLLM calls none for text alone.
    expected = f"{processor.tokenizer.bos_token}{expected}"
    assert processor.apply_chat_template(messages) == expected
    asked = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert asked == f"{expected}<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("roles", "wrong"),
    [
        (["assistant"], "turn 1 is of role assistant"),
        (["system", "user"], "turn 1 is of role system"),
        (["user", "user"], "turn 2 is of role user"),
        (["subtitle", "assistant"], "turn 1 is of role assistant"),
    ],
)
def test_turns_that_do_not_alternate_are_refused(processor, roles, wrong):
    with pytest.raises(TemplateError, match=f"{wrong}; user and assistant take turns"):
        processor.apply_chat_template([{"role": role, "content": "Hi."} for role in roles])


# Crop grids and settings


def test_crop_grids_of_all_shapes():
    sides = [1, 2, 50, 111, 112, 113, 120, 266, 377, 378, 379, 500, 640, 644, 645, 910, 1000, 1080, 1920, 3000, 10_000]
    geometry = {"overlap_margins": [4, 4], "crop_size": 378, "patch_size": 14}
    for height, width, limit in itertools.product(sides, sides, (8, 24)):
        rows, columns, *_ = compute_crop_geometry(height, width, limit, **geometry)
        assert crops.choose_crop_grid(height, width, limit) == (rows, columns), (height, width, limit)


def test_the_values_it_has_loaded(processor, tokenizer):
    assert type(processor).__name__ == "Molmo2Processor"
    assert (processor.image_processor.max_crops, processor.video_processor.num_frames) == (8, 384)
    assert (processor.video_processor.max_fps, processor.video_processor.do_sample_frames) == (2, True)
    # Not used by transformers, but by vLLM.
    assert processor.video_processor.frame_sample_mode == "uniform_last_frame"
    assert (processor.tokenizer.bos_token, processor.tokenizer.eos_token) == ("<|im_end|>", "<|im_end|>")
    assert (processor.tokenizer.pad_token, processor.tokenizer.padding_side) == ("<|endoftext|>", "left")
    assert len(processor.tokenizer) == 151_936 + 14
    assert processor.tokenizer.decode([tokenizer.special("<im_patch>"), 9707], skip_special_tokens=True) == "Hello"
