"""Visual tokens: how an image or a video looks to the language model, before any text of a conversation.

    image   <low_res_im_start> 196 x <im_patch> <im_end>  <im_start> (W x <im_patch> <im_col>) x H <im_end>
    images  "Image 1" <low_res_im_start> ... <im_end>  "Image 2" <low_res_im_start> ... <im_end> ...
    video   "0.0 " <im_start> 81 x <im_patch> <im_end>  " 0.5 " <im_start> 81 x <im_patch> <im_end> ...  subtitles

Each <im_patch> is a slot to which one pooled visual feature is added. Timestamps, names of images and subtitles are
text and not visual: they are seen causally, while visual tokens of one image group see each other in both directions.
Source: the released processors of arXiv 2601.10611 (columns in the grid but not in the overview, a start token of the
overview's own, frames wrapped).

A layout is small, whatever it stands for: a packer that holds hundreds of videos needs their lengths, not 11,000 tokens
of each. `tokens(tok)` writes them out.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from molmo2_jax.data import views
from molmo2_jax.text.tokenizer import Tokenizer

FRAME_TOKENS = {"im": ("<im_start>", "<im_end>"), "frame": ("<frame_start>", "<frame_end>")}
IMAGE_GROUPS = ("example", "frame")
TIMESTAMPS = {  # text before a frame, from its time (s), its number (from 0) and whether it is the first
    # The space belongs in front of every timestamp but the first, as the released models saw it.
    "per-frame-compact": lambda time, number: f"{time:.1f} " if number == 0 else f" {time:.1f} ",
    "per-frame": lambda time, number: f"time {time:.2f}",
    "numbered-frames": lambda time, number: f"{number + 1}:",
    "none": lambda time, number: "",
}
SUBTITLES = ("frame_1", "all", "ignore")
NEAR = 1.0  # s; a subtitle is shown by "frame_1" if a frame is sampled as near to it
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

Subtitles = Sequence[tuple[float, float, str]] | str | None  # (start, end, text) in the clip's time, or a text as it is


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


class Layout(Protocol):
    """Visual tokens before they are written out. `left_out`: lines of subtitles that found no room."""

    left_out: int

    @property
    def n_tokens(self) -> int: ...

    def tokens(self, tok: Tokenizer) -> VisualTokens: ...


@dataclasses.dataclass(frozen=True)
class NoVisual:
    """The layout of a text-only example."""

    left_out = 0
    n_tokens = 0

    def tokens(self, tok: Tokenizer) -> VisualTokens:
        return _assemble([], [], patch=-1)


@dataclasses.dataclass(frozen=True)
class ImagesLayout:
    """Images one after the other, each after its name where there are several. Two of one crop: 2 x (3 + 410) tokens.

    An image's overview and its stitched grid of crops are one image, hence one group. `image_groups`: "example" lets
    all images see each other, "frame" only the overview and the grid of one.
    """

    tilings: tuple[views.Tiling, ...]
    names: tuple[tuple[int, ...], ...]
    image_groups: str
    left_out = 0

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.names)) + sum(map(image_length, self.tilings))

    def tokens(self, tok: Tokenizer) -> VisualTokens:
        tokens: list[int] = []
        groups: list[int] = []
        for number, (tiling, name) in enumerate(zip(self.tilings, self.names, strict=True), start=1):
            image = _image(tiling, tok)
            tokens += [*name, *image]
            groups += [0] * len(name) + [number if self.image_groups == "frame" else 1] * len(image)
        return _assemble(tokens, groups, tok.special("<im_patch>"))


@dataclasses.dataclass(frozen=True)
class VideoLayout:
    """Frames, each after its timestamp and wrapped by tokens, then subtitles. 21 frames of a 10 s clip: 1,848 tokens.

    `image_groups`: "example" lets all frames see each other, "frame" only the patches of one frame.
    """

    stamps: tuple[tuple[int, ...], ...]
    frame_tokens: str
    image_groups: str
    subtitles: tuple[int, ...]
    left_out: int

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.stamps)) + (views.FRAME_SLOTS + 2) * len(self.stamps) + len(self.subtitles)

    def tokens(self, tok: Tokenizer) -> VisualTokens:
        start, end = (tok.special(name) for name in FRAME_TOKENS[self.frame_tokens])
        patch = tok.special("<im_patch>")
        frame = [start, *[patch] * views.FRAME_SLOTS, end]
        tokens: list[int] = []
        groups: list[int] = []
        for number, stamp in enumerate(self.stamps, start=1):
            tokens += [*stamp, *frame]
            groups += [0] * len(stamp) + [number if self.image_groups == "frame" else 1] * len(frame)
        groups += [0] * len(self.subtitles)
        return _assemble([*tokens, *self.subtitles], groups, patch)


def images_layout(tilings: Sequence[views.Tiling], tok: Tokenizer, image_groups: str) -> ImagesLayout:
    """The layout of images cut into `tilings`."""
    _check("image_groups", image_groups, IMAGE_GROUPS)
    names = [_encode(tok, f"Image {number}") if len(tilings) > 1 else () for number in range(1, len(tilings) + 1)]
    return ImagesLayout(tuple(tilings), tuple(names), image_groups)


def video_layout(
    times: Sequence[float],
    tok: Tokenizer,
    *,
    frame_tokens: str,
    image_groups: str,
    timestamps: str,
    subtitles: Subtitles = None,
    show_subtitles: str = "ignore",
    max_subtitle_tokens: int | None = None,
) -> VideoLayout:
    """The layout of a video of frames at `times`, in seconds since the clip's start.

    `frame_tokens` ("im", "frame") picks what wraps a frame, `timestamps` is a key of TIMESTAMPS. `show_subtitles`:
    "frame_1" shows lines within a second of a frame, "all" every line, "ignore" none; lines from the first that has no
    room in `max_subtitle_tokens` on are left out and counted.
    """
    _check("image_groups", image_groups, IMAGE_GROUPS)
    _check("frame_tokens", frame_tokens, FRAME_TOKENS)
    _check("timestamps", timestamps, TIMESTAMPS)
    _check("subtitles", show_subtitles, SUBTITLES)
    stamps = tuple(_encode(tok, TIMESTAMPS[timestamps](time, number)) for number, time in enumerate(times))
    lines = [] if show_subtitles == "ignore" else _lines(subtitles, times if show_subtitles == "frame_1" else None)
    said, left_out = _said(lines, tok, max_subtitle_tokens)
    return VideoLayout(stamps, frame_tokens, image_groups, said, left_out)


def image_length(tiling: views.Tiling) -> int:
    """Tokens of one image: (2, 2) -> 752."""
    (low_rows, low_columns), (rows, columns) = views.image_grid(tiling)
    return low_rows * low_columns + 2 + rows * (columns + 1) + 2


def _image(tiling: views.Tiling, tok: Tokenizer) -> list[int]:
    patch, end = tok.special("<im_patch>"), tok.special("<im_end>")
    (low_rows, low_columns), (rows, columns) = views.image_grid(tiling)
    line = [patch] * columns + [tok.special("<im_col>")]
    overview = [tok.special("<low_res_im_start>"), *[patch] * (low_rows * low_columns), end]
    return [*overview, tok.special("<im_start>"), *line * rows, end]


def _lines(subtitles: Subtitles, near: Sequence[float] | None) -> list[str]:
    """The lines to show, each with its line end; of timed ones those near the times `near`, all if that is None."""
    if subtitles is None:
        return []
    if isinstance(subtitles, str):
        return subtitles.splitlines(keepends=True)
    times = None if near is None else np.asarray(near)
    return [
        f"{start:.1f} - {end:.1f} {text}\n"
        for start, end, text in subtitles
        if times is None or ((start - NEAR <= times) & (times <= end + NEAR)).any()
    ]


def _said(lines: Sequence[str], tok: Tokenizer, most: int | None) -> tuple[tuple[int, ...], int]:
    """Tokens of as many lines as have room, and how many have not."""
    if not lines:
        return (), 0
    kept = len(lines)
    if most is not None:
        ends = itertools.accumulate(len(tok.encode(line)) for line in lines)
        room = most - len(tok.encode("subtitle\n"))
        kept = sum(1 for end in ends if end <= room)
    said = tuple(tok.encode("subtitle\n" + "".join(lines[:kept]))) if kept else ()
    return said, len(lines) - kept


@functools.lru_cache(maxsize=65_536)
def _encode(tok: Tokenizer, text: str) -> tuple[int, ...]:
    # Most timestamps come again in every video.
    return tuple(tok.encode(text))


def _check(key: str, value: str, known) -> None:
    if value not in known:
        raise ValueError(f"{key} is {value!r}, not one of {tuple(known)}")


def _assemble(tokens: list[int], groups: list[int], patch: int) -> VisualTokens:
    array = np.array(tokens, np.int32)
    return VisualTokens(array, np.flatnonzero(array == patch).astype(np.int32), np.array(groups, np.int32))
