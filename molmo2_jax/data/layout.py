"""Visual tokens: how an image or a video looks to the language model, before any text of a conversation.

    image   <low_res_im_start> 196 x <im_patch> <im_end>  <im_start> (W x <im_patch> <im_col>) x H <im_end>
    images  "Image 1" <low_res_im_start> ... <im_end>  "Image 2" <low_res_im_start> ... <im_end> ...
    video   "0.0 " <im_start> 81 x <im_patch> <im_end>  " 0.5 " <im_start> 81 x <im_patch> <im_end> ...

Each <im_patch> is a slot to which one pooled visual feature is added. Timestamps and names of images are text and not
visual: they are seen causally, while visual tokens of one image group see each other in both directions. Source: the
released processors of arXiv 2601.10611 (columns in the grid but not in the overview, a start token of the overview's
own, frames wrapped).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from molmo2_jax.data import image as image_lib
from molmo2_jax.text.tokenizer import Tokenizer

FRAME_TOKENS = {"im": ("<im_start>", "<im_end>"), "frame": ("<frame_start>", "<frame_end>")}
FRAME_SLOTS = 81  # visual tokens of one frame: 27 x 27 patches pooled 3 x 3
IMAGE_GROUPS = ("example", "frame")
VISUAL = (  # tokens that belong to images and are never text, never a target of the loss
    "<im_start>",
    "<im_end>",
    "<im_patch>",
    "<im_col>",
    "<low_res_im_start>",
    "<im_low>",
    "<frame_start>",
    "<frame_end>",
)


@dataclasses.dataclass(frozen=True, eq=False)
class VisualTokens:
    """What stands between BOS and the first question. With two frames of 1 patch each and groups by frame:

    tokens       "0.0 " S P E " 0.5 " S P E      int32[n]  (S, E the frame's wrapping)
    slots                 2           6          int32[g]  where the <im_patch> tokens are
    image_group     0   1 1 1    0    2 2 2      int32[n]
    """

    tokens: np.ndarray
    slots: np.ndarray
    image_group: np.ndarray


def no_visual_tokens() -> VisualTokens:
    """The visual tokens of a text-only example: none."""
    return _assemble([], [], patch=-1)


def image_tokens(tiling: image_lib.Tiling, tok: Tokenizer) -> VisualTokens:
    """An image: its overview and its stitched grid of crops are one image, hence one group. 2x2 crops: 752 tokens."""
    patch, end = tok.special("<im_patch>"), tok.special("<im_end>")
    (low_rows, low_columns), (rows, columns) = image_lib.image_grid(tiling)
    tokens = [tok.special("<low_res_im_start>"), *[patch] * (low_rows * low_columns), end]
    tokens += [tok.special("<im_start>"), *([patch] * columns + [tok.special("<im_col>")]) * rows, end]
    return _assemble(tokens, [1] * len(tokens), patch)


def images_tokens(tilings: Sequence[image_lib.Tiling], tok: Tokenizer, image_groups: str) -> VisualTokens:
    """Images one after the other, each after its name where there are several. Two of one crop: 2 x (3 + 410) tokens.

    `image_groups`: "example" lets all of them see each other, "frame" only the overview and the grid of one image.
    """
    _check_groups(image_groups)
    tokens: list[int] = []
    groups: list[int] = []
    for number, tiling in enumerate(tilings, start=1):
        name = tok.encode(f"Image {number}") if len(tilings) > 1 else []
        image = image_tokens(tiling, tok).tokens.tolist()
        tokens += name + image
        groups += [0] * len(name) + [number if image_groups == "frame" else 1] * len(image)
    return _assemble(tokens, groups, tok.special("<im_patch>"))


def video_tokens(times: Sequence[float], tok: Tokenizer, frame_tokens: str, image_groups: str) -> VisualTokens:
    """A video of frames at `times`, in seconds since the clip's start. 21 frames of a 10 s clip: 1,848 tokens.

    `frame_tokens` ("im", "frame") picks what wraps a frame. `image_groups`: "example" lets all frames see each other,
    "frame" only the patches of one frame.
    """
    _check_groups(image_groups)
    if frame_tokens not in FRAME_TOKENS:
        raise ValueError(f"frame_tokens is {frame_tokens!r}, not one of {tuple(FRAME_TOKENS)}")
    start, end = (tok.special(name) for name in FRAME_TOKENS[frame_tokens])
    patch = tok.special("<im_patch>")
    frame = [start, *[patch] * FRAME_SLOTS, end]
    tokens: list[int] = []
    groups: list[int] = []
    for index, time in enumerate(times):
        # The space belongs in front of every timestamp but the first, as the released models saw it.
        stamp = tok.encode(f"{time:.1f} " if index == 0 else f" {time:.1f} ")
        tokens += stamp + frame
        groups += [0] * len(stamp) + [index + 1 if image_groups == "frame" else 1] * len(frame)
    return _assemble(tokens, groups, patch)


def _check_groups(image_groups: str) -> None:
    if image_groups not in IMAGE_GROUPS:
        raise ValueError(f"image_groups is {image_groups!r}, not one of {IMAGE_GROUPS}")


def _assemble(tokens: list[int], groups: list[int], patch: int) -> VisualTokens:
    array = np.array(tokens, np.int32)
    return VisualTokens(array, np.flatnonzero(array == patch).astype(np.int32), np.array(groups, np.int32))


class VisualLayout:
    """STANDIN."""

    left_out = 0

    def __init__(self, visual):
        self._visual = visual

    @property
    def n_tokens(self):
        return len(self._visual.tokens)

    def tokens(self, tok):
        return self._visual


def NoVisual():
    return VisualLayout(no_visual_tokens())


def images_layout(tilings, tok, groups):
    return VisualLayout(images_tokens(tilings, tok, groups))


def video_layout(times, subtitles, tok, cfg):
    return VisualLayout(video_tokens(times, tok, cfg.frame_tokens, cfg.image_groups))
