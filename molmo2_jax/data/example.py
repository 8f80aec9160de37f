"""Describing: from a record to everything about its example but the pixels. Reads kilobytes, decodes nothing.

    record street/car  ->  turns as tokens, in a drawn order and wording      lengths
                           VideoPlan("bikes.mp4", times 3.04, 3.54, ... 7.44)     10 crops, 810 pooled tokens

The packer needs only the lengths; arrays are laid out and media decoded for examples that a row will train on.
"""

import dataclasses

import numpy as np

from molmo2_jax.data import layout, tree, views, vision_shards
from molmo2_jax.data.annotations import Message
from molmo2_jax.data.complaints import RecordError
from molmo2_jax.data.config import DataConfig, DatasetConfig
from molmo2_jax.data.failure import ExampleError
from molmo2_jax.data.media import ImageMedium, VideoMedium
from molmo2_jax.data.plan import ImagePlan, VideoPlan
from molmo2_jax.data.prompts import Written, write_turn
from molmo2_jax.data.record import Record
from molmo2_jax.data.sampling import frame_times
from molmo2_jax.data.schema import PATCHES, POOL
from molmo2_jax.data.styles import STYLES
from molmo2_jax.text import chat
from molmo2_jax.text.tokenizer import Tokenizer

Media = tuple[VideoMedium | ImageMedium, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A described example. `where` names the record in errors ("a.jsonl:3: record 'street/car'").

    `dropped` counts messages, and lines of subtitles, that were left out because they did not fit. `part` is 0 but for
    what a split record has beyond its first example.
    """

    dataset: str
    id: str
    where: str
    visual: layout.Layout
    media: tuple[VideoPlan | ImagePlan, ...]
    turns: tuple[tree.Turn, ...]
    dropped: int
    part: int

    @property
    def n_tokens(self) -> int:
        return 1 + self.visual.n_tokens + tree.text_tokens(self.turns)

    @property
    def n_crops(self) -> int:
        return sum(plan.n_crops for plan in self.media)

    @property
    def n_pooled(self) -> int:
        return sum(plan.n_pooled for plan in self.media)

    @property
    def units(self) -> tuple[tuple[int, int], ...]:
        """(crops, pooled tokens) of each image or frame: what one device encodes."""
        return tuple(unit for plan in self.media for unit in plan.units)

    def lay_out(self, tok: Tokenizer, length_weight: float) -> tree.ExampleTokens:
        """Its tokens, targets, weights and visibility, relative to its own start."""
        never = [tok.special(token) for token in layout.VISUAL]
        return tree.lay_out(
            self.visual.tokens(tok),
            self.turns,
            bos=tok.bos_id,
            eos=tok.eos_id,
            length_weight=length_weight,
            never_targets=never,
        )

    def pooling(self) -> np.ndarray:
        """int32[n_pooled, 9]: patches of each visual token, 729 ids a crop, counted from the example's first crop."""
        first, rows = 0, [np.empty((0, POOL), np.int32)]
        for plan in self.media:
            patches = plan.pooling()
            rows.append(np.where(patches < 0, patches, patches + PATCHES * first).astype(np.int32))
            first += plan.n_crops
        return np.concatenate(rows)


def describe(
    record: Record, name: str, settings: DatasetConfig, tok: Tokenizer, cfg: DataConfig, rng: np.random.Generator
) -> list[Example]:
    """The examples of a record of dataset `name` as drawn by `rng`: order of branches, wording, resolution.

    It is one example, unless its messages do not fit one row and cfg.overflow is "split": then each has the media and
    some of the branches. Messages that fit no row beside the media are dropped with what follows them, and counted.
    Raises ExampleError when a message cannot be written, RecordError when the media are over a budget or no message
    fits beside them.
    """
    where = record.where
    high_res = len(record.media) == 1 and settings.high_res > 0 and rng.random() < settings.high_res
    look = _look(record, where, cfg, cfg.high_res_crops if high_res else cfg.max_crops, tok)
    order = tree.depth_first(record.messages, rng)
    try:
        turns = [_turn(message, parent, settings, look, tok, cfg, rng) for message, parent in order]
    except ExampleError as error:
        raise RecordError([f"{where}: {error}"], error.reason) from error
    room = cfg.seq_len - 1 - look.visual.n_tokens
    shortest = min(len(turn.user) + len(turn.answer) for turn in turns if turn.parent == tree.ROOT)
    _check_budget(where, look, 1 + look.visual.n_tokens + shortest, cfg)
    if cfg.overflow == "split":
        parts = tree.split_fitting(turns, room)
    else:
        parts = [tree.keep_fitting(turns, room)]
    dropped = len(turns) - sum(map(len, parts)) + look.visual.left_out
    return [
        Example(name, record.id, where, look.visual, look.plans, tuple(part), dropped if number == 0 else 0, number)
        for number, part in enumerate(parts)
    ]


def describe_prompt(text: str, media: Media, tok: Tokenizer, cfg: DataConfig) -> Example:
    """A question the model is to answer, laid out as in training: the same tokens up to the answer, weights all 0.

    Raises RecordError when the prompt is larger than a row.
    """
    where = f"prompt about {', '.join(str(medium.location) for medium in media)}" if media else "prompt"
    look = _look(Record("prompt", where, media, None, ()), where, cfg, cfg.max_crops, tok)
    turn = tree.Turn(tree.ROOT, _ids(chat.user_turn(tok, text, first=True)), None, None, 1.0)
    _check_budget(where, look, 1 + look.visual.n_tokens + len(turn.user), cfg)
    return Example("prompt", "prompt", where, look.visual, look.plans, (turn,), 0, 0)


def first_turns(record: Record, cfg: DataConfig, rng: np.random.Generator) -> list[Written]:
    """What the user says and what was annotated, of the first message of every branch. Raises ExampleError."""
    times = _times(record, cfg)
    n_images = len(record.media) if times is None else 0
    return [_write(message, tree.ROOT, times, n_images, cfg, rng) for message in tree.first(record.messages, rng)]


@dataclasses.dataclass(frozen=True)
class _Look:
    """What a row shows of the media: what to decode, the tokens that stand for it, and times of frames (s)."""

    plans: tuple
    visual: layout.Layout
    times: np.ndarray | None
    n_images: int


def _look(record: Record, where: str, cfg: DataConfig, max_crops: int, tok: Tokenizer) -> _Look:
    media = record.media
    if not media:
        return _Look((), layout.NoVisual(), None, 0)
    if isinstance(media[0], ImageMedium):
        if len(media) > cfg.max_images:
            raise RecordError(
                [f"{where}: has {len(media)} images, an example max_images = {cfg.max_images}"], "too_many_crops"
            )
        tilings = tuple(views.choose_tiling(height, width, max_crops) for width, height in (m.size for m in media))
        plans = tuple(ImagePlan(medium.location, tiling) for medium, tiling in zip(media, tilings, strict=True))
        return _Look(plans, layout.images_layout(tilings, tok, cfg.image_groups), None, len(media))
    (medium,) = media
    times = _times(record, cfg)
    # The sum may leave the clip by a rounding error, and there may be no frame there.
    plan = VideoPlan(medium.location, tuple(min(medium.start + float(time), medium.end) for time in times))
    visual = layout.video_layout(
        times,
        tok,
        frame_tokens=cfg.frame_tokens,
        image_groups=cfg.image_groups,
        timestamps=cfg.timestamps,
        subtitles=record.subtitles,
        show_subtitles=cfg.subtitles,
        max_subtitle_tokens=cfg.max_subtitle_tokens,
    )
    return _Look((plan,), visual, times, 0)


def _times(record: Record, cfg: DataConfig) -> np.ndarray | None:
    """When the frames of its video are sampled, in seconds since the clip's start."""
    videos = [medium for medium in record.media if isinstance(medium, VideoMedium)]
    return frame_times(videos[0], cfg) if videos else None


def _write(message: Message, parent: int, times, n_images: int, cfg: DataConfig, rng: np.random.Generator) -> Written:
    return write_turn(message, cfg, rng, first=parent == tree.ROOT, times=times, n_images=n_images)


def _turn(
    message: Message,
    parent: int,
    settings: DatasetConfig,
    look: _Look,
    tok: Tokenizer,
    cfg: DataConfig,
    rng: np.random.Generator,
) -> tree.Turn:
    written = _write(message, parent, look.times, look.n_images, cfg, rng)
    user = chat.user_turn(tok, written.user, first=parent == tree.ROOT)
    flat = settings.weight
    if flat is None:
        flat = 1.0 if cfg.token_weights == "one" else STYLES[message.style].flat
    return tree.Turn(parent, _ids(user), _ids(chat.assistant_turn(tok, written.answer)), flat, message.weight)


def _ids(tokens: list[int]) -> np.ndarray:
    return np.array(tokens, np.int32)  # a ninth of a list's memory; hundreds of examples wait in a pool


def _check_budget(where: str, look: _Look, tokens: int, cfg: DataConfig) -> None:
    """Raise RecordError when a row cannot hold the media and the shortest message."""
    shards = cfg.vision_shards
    needs = [
        ("too_long", "tokens for its media and shortest message", tokens, "seq_len", cfg.seq_len),
        ("too_many_crops", "crops", sum(plan.n_crops for plan in look.plans), "crops", cfg.crops),
        ("too_many_crops", "visual tokens", sum(plan.n_pooled for plan in look.plans), "pooled", cfg.pooled),
    ]
    over = [(why, f"{where}: needs {n} {what}, a row has {key} = {cap}") for why, what, n, key, cap in needs if n > cap]
    if over:
        raise RecordError([text for _, text in over], over[0][0])
    units = [unit for plan in look.plans for unit in plan.units]
    if shards > 1 and vision_shards.assign(units, shards, cfg.crops, cfg.pooled) is None:
        crops = max(c for c, _ in units)
        raise RecordError(
            [f"{where}: its images of up to {crops} crops do not fit {shards} vision shards"], "too_many_crops"
        )
