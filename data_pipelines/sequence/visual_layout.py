"""Visual tokens: an image or a video as token sequence, which precedes the text of a conversation.

    image   <low_res_im_start> 196 x <im_patch> <im_end>  <im_start> (W x <im_patch> <im_col>) x H <im_end>
    images  "Image 1" <low_res_im_start> ... <im_end>  "Image 2" <low_res_im_start> ... <im_end> ...
    video   "0.0 " <im_start> 81 x <im_patch> <im_end>  " 0.5 " <im_start> 81 x <im_patch> <im_end> ...  subtitles

One pooled visual feature is added to each <im_patch>. Timestamps, names of images and subtitles are text, attended to
causally; visual tokens of one image group attend to each other in both directions. Source: the released processors of
arXiv 2601.10611 (column tokens in the grid but not in the overview, a start token for the overview, wrapped frames).

A layout is small, however many tokens it stands for: packing holds hundreds of videos and needs their lengths, not the
11,000 tokens of each. `tokens(tok)` writes them out.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from data_pipelines.media import crops
from data_pipelines.media.token_counts import TOKENS_PER_FRAME, token_grids
from data_pipelines.records.read import Subtitles
from data_pipelines.sequence.view_config import FRAME_TOKENS, TIMESTAMPS, ViewConfig
from data_pipelines.text.tokenizer import Tokenizer

SUBTITLE_MARGIN = 1.0  # s; "frame_1" shows a subtitle if a frame is sampled at most so far from it
VISUAL = (  # special tokens of images: never text, never a target of the loss
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
    """The tokens between BOS and the first question. With two frames of 1 patch each and groups by frame:

    tokens       "0.0 " S P E " 0.5 " S P E      int32[n]  (S, E wrap a frame)
    slots                 2           6          int32[g]  indices of the <im_patch> tokens
    image_group     0   1 1 1    0    2 2 2      int32[n]
    """

    tokens: np.ndarray
    slots: np.ndarray
    image_group: np.ndarray


class Layout(Protocol):
    """Visual tokens before they are written out. `dropped`: number of subtitle lines that did not fit."""

    dropped: int

    @property
    def n_tokens(self) -> int: ...

    def tokens(self, tok: Tokenizer) -> VisualTokens: ...


@dataclasses.dataclass(frozen=True)
class NoVisual:
    """The layout of a text-only example."""

    dropped = 0
    n_tokens = 0

    def tokens(self, tok: Tokenizer) -> VisualTokens:
        return _assemble([], [], patch=-1)


@dataclasses.dataclass(frozen=True)
class ImagesLayout:
    """Images in order, each after its name where there are several. Two of one crop each: 2 x (3 + 410) tokens.

    The overview and the stitched grid of crops of an image are one group. `image_groups`: with "example", the tokens of
    all images attend to each other; with "frame", those of one image.
    """

    crop_grids: tuple[crops.CropGrid, ...]
    names: tuple[tuple[int, ...], ...]
    image_groups: str
    dropped = 0

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.names)) + sum(map(image_length, self.crop_grids))

    def tokens(self, tok: Tokenizer) -> VisualTokens:
        tokens: list[int] = []
        groups: list[int] = []
        for number, (crop_grid, name) in enumerate(zip(self.crop_grids, self.names, strict=True), start=1):
            image = _image_tokens(crop_grid, tok)
            tokens += [*name, *image]
            groups += [0] * len(name) + [number if self.image_groups == "frame" else 1] * len(image)
        return _assemble(tokens, groups, tok.special("<im_patch>"))


@dataclasses.dataclass(frozen=True)
class VideoLayout:
    """Frames, each wrapped and after its timestamp, then subtitles. 21 frames of a 10 s clip: 1,848 tokens.

    `image_groups`: with "example", the tokens of all frames attend to each other; with "frame", those of one frame.
    """

    timestamps: tuple[tuple[int, ...], ...]
    frame_tokens: str
    image_groups: str
    subtitles: tuple[int, ...]
    dropped: int

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.timestamps)) + (TOKENS_PER_FRAME + 2) * len(self.timestamps) + len(self.subtitles)

    def tokens(self, tok: Tokenizer) -> VisualTokens:
        start, end = (tok.special(name) for name in FRAME_TOKENS[self.frame_tokens])
        patch = tok.special("<im_patch>")
        frame = [start, *[patch] * TOKENS_PER_FRAME, end]
        tokens: list[int] = []
        groups: list[int] = []
        for number, timestamp in enumerate(self.timestamps, start=1):
            tokens += [*timestamp, *frame]
            groups += [0] * len(timestamp) + [number if self.image_groups == "frame" else 1] * len(frame)
        groups += [0] * len(self.subtitles)
        return _assemble([*tokens, *self.subtitles], groups, patch)


def images_layout(crop_grids: Sequence[crops.CropGrid], tok: Tokenizer, image_groups: str) -> ImagesLayout:
    """The layout of images that are cut into `crop_grids`; `image_groups` is one of IMAGE_GROUPS."""
    names = [_encode_cached(tok, f"Image {n}") if len(crop_grids) > 1 else () for n in range(1, len(crop_grids) + 1)]
    return ImagesLayout(tuple(crop_grids), tuple(names), image_groups)


def video_layout(times: Sequence[float], subtitles: Subtitles, tok: Tokenizer, view: ViewConfig) -> VideoLayout:
    """The layout of a video of frames at `times`, in seconds since the clip's start.

    Subtitle lines are kept in order while they fit `view.max_subtitle_tokens`; the others are left out and counted.
    """
    timestamps = tuple(
        _encode_cached(tok, TIMESTAMPS[view.timestamps](time, number)) for number, time in enumerate(times)
    )
    lines = (
        [] if view.subtitles == "ignore" else _subtitle_lines(subtitles, times if view.subtitles == "frame_1" else None)
    )
    shown, dropped = _subtitle_tokens(lines, tok, view.max_subtitle_tokens)
    return VideoLayout(timestamps, view.frame_tokens, view.image_groups, shown, dropped)


def image_length(crop_grid: crops.CropGrid) -> int:
    """Tokens of one image: (2, 2) -> 752."""
    (low_rows, low_columns), (rows, columns) = token_grids(crop_grid)
    return low_rows * low_columns + 2 + rows * (columns + 1) + 2


def _image_tokens(crop_grid: crops.CropGrid, tok: Tokenizer) -> list[int]:
    patch, end = tok.special("<im_patch>"), tok.special("<im_end>")
    (low_rows, low_columns), (rows, columns) = token_grids(crop_grid)
    line = [patch] * columns + [tok.special("<im_col>")]
    overview = [tok.special("<low_res_im_start>"), *[patch] * (low_rows * low_columns), end]
    return [*overview, tok.special("<im_start>"), *line * rows, end]


def _subtitle_lines(subtitles: Subtitles, near: Sequence[float] | None) -> list[str]:
    """The lines to show, each with its line end. Of timed lines, only those close to a time of `near`, unless None."""
    if subtitles is None:
        return []
    if isinstance(subtitles, str):
        return subtitles.splitlines(keepends=True)
    times = None if near is None else np.asarray(near)
    return [
        f"{start:.1f} - {end:.1f} {text}\n"
        for start, end, text in subtitles
        if times is None or ((start - SUBTITLE_MARGIN <= times) & (times <= end + SUBTITLE_MARGIN)).any()
    ]


def _subtitle_tokens(lines: Sequence[str], tok: Tokenizer, max_tokens: int | None) -> tuple[tuple[int, ...], int]:
    """Tokens of as many lines as fit, and the number of lines that do not."""
    if not lines:
        return (), 0
    kept = len(lines)
    if max_tokens is not None:
        ends = itertools.accumulate(len(tok.encode(line)) for line in lines)
        room = max_tokens - len(tok.encode("subtitle\n"))
        kept = sum(1 for end in ends if end <= room)
    shown = tuple(tok.encode("subtitle\n" + "".join(lines[:kept]))) if kept else ()
    return shown, len(lines) - kept


@functools.lru_cache(maxsize=65_536)
def _encode_cached(tok: Tokenizer, text: str) -> tuple[int, ...]:
    # Most timestamps occur in every video.
    return tuple(tok.encode(text))


def _assemble(tokens: list[int], groups: list[int], patch: int) -> VisualTokens:
    array = np.array(tokens, np.int32)
    return VisualTokens(array, np.flatnonzero(array == patch).astype(np.int32), np.array(groups, np.int32))
