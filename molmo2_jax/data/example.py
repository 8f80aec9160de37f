"""Describing: from a record to everything about its example but the pixels. Reads kilobytes, decodes nothing.

    record street/car  ->  tokens, targets, weights, positions, visibility        arrays of n tokens
                           VideoPlan("bikes.mp4", times 3.04, 3.54, ... 7.44)     10 crops, 810 pooled tokens

The packer needs only the lengths; `views()` decodes, and only for examples that a row will train on.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from molmo2_jax.data import image as image_lib
from molmo2_jax.data import layout, tree
from molmo2_jax.data import video as video_lib
from molmo2_jax.data.config import DataConfig
from molmo2_jax.data.record import (
    ImageMedium,
    Message,
    PointsAnswer,
    Record,
    RecordError,
    VideoMedium,
    open_image,
    open_video,
)
from molmo2_jax.data.schema import PATCHES, POOL
from molmo2_jax.data.styles import STYLES
from molmo2_jax.text import chat, points
from molmo2_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class VideoPlan:
    """Frames to take from a video: one crop and 81 pooled tokens each. `times` are seconds of the video, ascending."""

    path: Path
    times: tuple[float, ...]

    @property
    def n_crops(self) -> int:
        return len(self.times)

    @property
    def n_pooled(self) -> int:
        return layout.FRAME_SLOTS * len(self.times)

    def pooling(self) -> np.ndarray:
        """int32[n_pooled, 9], patch ids counted from this medium's first crop."""
        return image_lib.frame_pooling(len(self.times))

    def views(self) -> Iterator[np.ndarray]:
        """n_crops crops, uint8[729, 588] each. Raises MediaError when the video cannot be decoded."""
        for frame in video_lib.decode_frames(self.path, self.times):
            yield image_lib.frame_view(frame)


@dataclasses.dataclass(frozen=True)
class ImagePlan:
    """An image cut into an overview and the crops of `tiling`."""

    path: Path
    tiling: image_lib.Tiling

    @property
    def n_crops(self) -> int:
        rows, columns = self.tiling
        return 1 + rows * columns

    @property
    def n_pooled(self) -> int:
        return sum(rows * columns for rows, columns in image_lib.image_grid(self.tiling))

    def pooling(self) -> np.ndarray:
        """int32[n_pooled, 9], patch ids counted from this medium's first crop, -1 absent."""
        return image_lib.image_pooling(self.tiling)

    def views(self) -> Iterator[np.ndarray]:
        """n_crops crops, uint8[729, 588] each, the overview first. Raises MediaError when the image cannot be read."""
        yield from image_lib.image_views(image_lib.load_image(self.path), self.tiling)


@dataclasses.dataclass(frozen=True, eq=False)
class Example(tree.ExampleTokens):
    """A described example: the arrays of tree.ExampleTokens, relative to the example's start, and its media's plans.

    `where` names the record in errors ("a.jsonl:3: record 'street/car'"); `dropped` counts messages left out because
    they did not fit the row.
    """

    id: str
    where: str
    media: tuple[VideoPlan | ImagePlan, ...]
    dropped: int

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def n_crops(self) -> int:
        return sum(plan.n_crops for plan in self.media)

    @property
    def n_pooled(self) -> int:
        return len(self.visual_slots)

    def pooling(self) -> np.ndarray:
        """int32[n_pooled, 9]: patches of each visual token, 729 ids a crop, counted from the example's first crop."""
        first, rows = 0, [np.empty((0, POOL), np.int32)]
        for plan in self.media:
            patches = plan.pooling()
            rows.append(np.where(patches < 0, patches, patches + PATCHES * first).astype(np.int32))
            first += plan.n_crops
        return np.concatenate(rows)

    def views(self) -> Iterator[np.ndarray]:
        """n_crops crops, uint8[729, 588] each, decoded now. Raises MediaError, naming the file."""
        for plan in self.media:
            yield from plan.views()


def describe(record: Record, tok: Tokenizer, cfg: DataConfig, rng: np.random.Generator) -> Example:
    """The example of a record as drawn by `rng`, which shuffles the order of branches.

    Messages that do not fit the row's tokens are dropped with what follows them and counted. Raises RecordError when
    the media alone are over a budget or not even one message fits.
    """
    plans, visual = _look(record.media, tok, cfg)
    order = tree.depth_first(record.messages, rng)
    turns = [_turn(message, parent, record.media, tok) for message, parent in order]
    kept = tree.keep_fitting(turns, cfg.seq_len - 1 - len(visual.tokens))
    shortest = min(len(turn.user) + len(turn.answer) for turn in turns if turn.parent == tree.ROOT)
    _check_budget(record.where, plans, 1 + len(visual.tokens) + shortest, cfg)
    return _example(record.id, record.where, plans, visual, kept, len(turns) - len(kept), tok, cfg)


def describe_prompt(
    text: str,
    tok: Tokenizer,
    cfg: DataConfig,
    *,
    video: str | Path | None,
    images: Sequence[str | Path],
    clip: tuple[float, float] | None,
) -> Example:
    """A question the model is to answer, laid out as in training: the same tokens up to the answer, weights all 0.

    `clip` is the part of the video to look at, in seconds. Raises MediaError for an unreadable medium, ValueError for
    a clip outside its video or two kinds of media, RecordError when the prompt is larger than a row.
    """
    if video is not None and images:
        raise ValueError("a prompt is about a video or about images, not both")
    if clip is not None and video is None:
        raise ValueError("a clip needs a video")
    if video is not None:
        media = (open_video(Path(video), clip),)
    else:
        media = tuple(open_image(Path(image)) for image in images)
    plans, visual = _look(media, tok, cfg)
    turn = tree.Turn(tree.ROOT, chat.user_turn(tok, text, first=True), None, None)
    where = f"prompt about {', '.join(str(medium.path) for medium in media)}" if media else "prompt"
    _check_budget(where, plans, 1 + len(visual.tokens) + len(turn.user), cfg)
    return _example("prompt", where, plans, visual, [turn], 0, tok, cfg)


def _look(media: tuple, tok: Tokenizer, cfg: DataConfig) -> tuple[tuple, layout.VisualTokens]:
    """What to decode of a video, of images or of nothing, and the tokens that stand for it."""
    if not media:
        return (), layout.no_visual_tokens()
    if isinstance(media[0], ImageMedium):
        sizes = [medium.size for medium in media]
        tilings = [image_lib.choose_tiling(height, width, cfg.max_crops) for width, height in sizes]
        plans = tuple(ImagePlan(medium.path, tiling) for medium, tiling in zip(media, tilings, strict=True))
        return plans, layout.images_tokens(tilings, tok, cfg.image_groups)
    (medium,) = media
    times = video_lib.frame_times(medium.end - medium.start, cfg.max_frames, cfg.fps)
    # The sum may leave the clip by a rounding error, and there may be no frame there.
    plan = VideoPlan(medium.path, tuple(min(medium.start + float(time), medium.end) for time in times))
    return (plan,), layout.video_tokens(times, tok, cfg.frame_tokens, cfg.image_groups)


def _turn(message: Message, parent: int, media: tuple, tok: Tokenizer) -> tree.Turn:
    user = chat.user_turn(tok, message.user, first=parent == tree.ROOT)
    answer = chat.assistant_turn(tok, answer_text(message, media))
    return tree.Turn(parent, user, answer, STYLES[message.style].flat)


def answer_text(message: Message, media: tuple[VideoMedium | ImageMedium, ...]) -> str:
    """The answer as text; points as fractions of the frame, keyed by seconds since the clip's start or image number.

    A car at pixel (120, 136) of a 640x272 frame, 5.54 s into the video and 2.5 s into the clip:

        <points coords="2.5 1 188 500">black car</points>
    """
    if not isinstance(message.answer, PointsAnswer):
        return message.answer
    (medium,) = media
    width, height = medium.size
    found = [
        points.Point(1 if point.time is None else point.time - medium.start, point.x / width, point.y / height)
        for point in message.answer.points
    ]
    mode = STYLES[message.style].points
    return points.write_points(message.answer.label, found, version="html-v2", mode=mode, alt=message.answer.alt)


def _check_budget(where: str, plans: tuple, tokens: int, cfg: DataConfig) -> None:
    """Raise RecordError when a row cannot hold the media and the shortest message."""
    needs = [
        ("tokens for its media and shortest message", tokens, "seq_len", cfg.seq_len),
        ("crops", sum(plan.n_crops for plan in plans), "crops", cfg.crops),
        ("visual tokens", sum(plan.n_pooled for plan in plans), "pooled", cfg.pooled),
    ]
    over = [f"{where}: needs {n} {what}, a row has {key} = {cap}" for what, n, key, cap in needs if n > cap]
    if over:
        raise RecordError(over)


def _example(
    name: str,
    where: str,
    plans: tuple,
    visual: layout.VisualTokens,
    turns: list[tree.Turn],
    dropped: int,
    tok: Tokenizer,
    cfg: DataConfig,
) -> Example:
    arrays = tree.lay_out(
        visual,
        turns,
        bos=tok.bos_id,
        eos=tok.eos_id,
        length_weight=cfg.length_weight,
        never_targets=[tok.special(token) for token in layout.VISUAL],
    )
    return Example(**vars(arrays), id=name, where=where, media=plans, dropped=dropped)
