"""Examples: all that training needs of a record except the pixels. Reads kilobytes and decodes nothing.

To *describe* a record is to plan its example without decoding it: draw the order and wording of its messages, tokenize
them, choose the frames and crops to show, and so learn the lengths that packing needs.

    record street/car  ->  turns as tokens, in a drawn order and wording
                           VideoPlan("bikes.mp4", times 3.04, 3.54, ... 7.44)     10 crops, 810 visual tokens

Arrays are laid out, and media decoded, only for examples of a row that is about to be trained on.
"""

import dataclasses

import numpy as np

from data_pipelines.errors import ExampleError
from data_pipelines.media import crops
from data_pipelines.media.crops import PATCHES
from data_pipelines.media.decode_plan import FramesPlan, ImagePlan, VideoPlan
from data_pipelines.media.frame_sampling import frame_times
from data_pipelines.media.medium import FramesMedium, ImageMedium, Media, VideoMedium
from data_pipelines.media.pooling import POOL
from data_pipelines.prompts import PromptConfig, TurnText, write_turn
from data_pipelines.records.annotations import Message
from data_pipelines.records.problems import RecordError
from data_pipelines.records.read import Record, Subtitles
from data_pipelines.records.styles import STYLES
from data_pipelines.sequence import message_tree, visual_layout
from data_pipelines.sequence.token_weights import TokenWeightConfig, flat_weight
from data_pipelines.sequence.view_config import ViewConfig
from data_pipelines.text import chat_turns
from data_pipelines.text.tokenizer import Tokenizer

Plan = VideoPlan | FramesPlan | ImagePlan


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A described example. `where` names the record in errors ("a.jsonl:3: record 'street/car'").

    `dropped` counts messages and subtitle lines that were left out because they did not fit. `part` numbers the
    examples that a record was split into, from 0.
    """

    dataset: str
    id: str
    where: str
    visual: visual_layout.Layout
    media: tuple[Plan, ...]
    turns: tuple[message_tree.Turn, ...]
    dropped: int
    part: int

    @property
    def n_tokens(self) -> int:
        return 1 + self.visual.n_tokens + message_tree.text_tokens(self.turns)

    @property
    def n_crops(self) -> int:
        return sum(plan.n_crops for plan in self.media)

    @property
    def n_pooled(self) -> int:
        return sum(plan.n_pooled for plan in self.media)

    @property
    def units(self) -> tuple[tuple[int, int], ...]:
        """(crops, visual tokens) of each image or frame, which one device encodes."""
        return tuple(unit for plan in self.media for unit in plan.units)

    def lay_out(self, tok: Tokenizer, length_weight: float) -> message_tree.ExampleTokens:
        """Tokens, targets, weights and visibility, relative to the example's own start."""
        return message_tree.lay_out(
            self.visual.tokens(tok),
            self.turns,
            bos=tok.bos_id,
            eos=tok.eos_id,
            length_weight=length_weight,
            never_targets=[tok.special(token) for token in visual_layout.VISUAL],
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
    record: Record,
    rng: np.random.Generator,
    tok: Tokenizer,
    view: ViewConfig,
    prompts: PromptConfig,
    weights: TokenWeightConfig,
    *,
    dataset: str,
    high_res: float,
    dataset_weight: float | None,
) -> Example:
    """The whole example of a record, whatever its size. `rng` draws the order of branches, wording and resolution.

    Args:
      dataset: name of the record's dataset.
      high_res: probability that a single image is cut into up to `view.high_res_crops` crops.
      dataset_weight: loss weight of every answer token; None where it depends on style and length.

    Raises:
      RecordError: a message cannot be written, or the record has too many images.
    """
    is_high_res = len(record.media) == 1 and high_res > 0 and rng.random() < high_res
    max_crops = view.high_res_crops if is_high_res else view.max_crops
    context = _visual_context(record.media, record.subtitles, record.where, tok, view, max_crops)
    order = message_tree.depth_first(record.messages, rng)
    try:
        texts = [_turn_text(message, parent, context, prompts, rng) for message, parent in order]
    except ExampleError as error:
        raise RecordError([f"{record.where}: {error}"], error.reason) from error
    turns = [
        message_tree.Turn(
            parent,
            _token_array(chat_turns.user_turn(tok, text.user, first=parent == message_tree.ROOT)),
            _token_array(chat_turns.assistant_turn(tok, text.answer)),
            flat_weight(weights, STYLES[message.style].flat_weight, dataset_weight),
            message.weight,
        )
        for text, (message, parent) in zip(texts, order, strict=True)
    ]
    visual = context.visual
    return Example(dataset, record.id, record.where, visual, context.plans, tuple(turns), visual.dropped, 0)


def describe_prompt(text: str, media: Media, tok: Tokenizer, view: ViewConfig) -> Example:
    """A question for the model to answer, laid out as in training up to the answer; all loss weights are 0.

    Raises:
      RecordError: there are more images than `view.max_images`.
    """
    where = f"prompt about {', '.join(str(medium.location) for medium in media)}" if media else "prompt"
    context = _visual_context(media, None, where, tok, view, view.max_crops)
    user = _token_array(chat_turns.user_turn(tok, text, first=True))
    turn = message_tree.Turn(message_tree.ROOT, user, None, None, 1.0)
    return Example("prompt", "prompt", where, context.visual, context.plans, (turn,), 0, 0)


def first_turns(record: Record, view: ViewConfig, prompts: PromptConfig, rng: np.random.Generator) -> list[TurnText]:
    """Prompt and annotated answer of the first message of every branch. Raises ExampleError."""
    times = _frame_times(record.media, view)
    context = _VisualContext((), visual_layout.NoVisual(), times, len(record.media) if times is None else 0)
    messages = message_tree.first_messages(record.messages, rng)
    return [_turn_text(message, message_tree.ROOT, context, prompts, rng) for message in messages]


@dataclasses.dataclass(frozen=True)
class _VisualContext:
    """What an example shows of its media: plans for decoding, visual tokens, and times of frames (s)."""

    plans: tuple[Plan, ...]
    visual: visual_layout.Layout
    times: np.ndarray | None
    n_images: int


def _visual_context(
    media: Media, subtitles: Subtitles, where: str, tok: Tokenizer, view: ViewConfig, max_crops: int
) -> _VisualContext:
    if not media:
        return _VisualContext((), visual_layout.NoVisual(), None, 0)
    if isinstance(media[0], ImageMedium):
        if len(media) > view.max_images:
            raise RecordError(
                [f"{where}: has {len(media)} images, more than max_images = {view.max_images}"], "too_many_crops"
            )
        grids = tuple(crops.choose_crop_grid(height, width, max_crops) for width, height in (m.size for m in media))
        plans = tuple(ImagePlan(medium.location, grid) for medium, grid in zip(media, grids, strict=True))
        return _VisualContext(plans, visual_layout.images_layout(grids, tok, view.image_groups), None, len(media))
    (medium,) = media
    times = _frame_times(media, view)
    if isinstance(medium, FramesMedium):
        plan = FramesPlan(medium.location, medium.frames)
    else:
        # A rounding error in the sum may leave the clip, and there may be no frame there.
        plan = VideoPlan(medium.location, tuple(min(medium.start + float(time), medium.end) for time in times))
    return _VisualContext((plan,), visual_layout.video_layout(times, subtitles, tok, view), times, 0)


def _frame_times(media: Media, view: ViewConfig) -> np.ndarray | None:
    """Times at which frames of a video are sampled, in seconds since the clip's start; None for images and text."""
    if media and isinstance(media[0], FramesMedium):
        return np.asarray(media[0].times)
    if media and isinstance(media[0], VideoMedium):
        return frame_times(media[0], view.frame_sampling, view.max_frames, view.fps)
    return None


def _turn_text(
    message: Message, parent: int, context: _VisualContext, prompts: PromptConfig, rng: np.random.Generator
) -> TurnText:
    first = parent == message_tree.ROOT
    return write_turn(message, prompts, rng, first=first, times=context.times, n_images=context.n_images)


def _token_array(tokens: list[int]) -> np.ndarray:
    return np.array(tokens, np.int32)  # a ninth of the memory of a list; a pool holds hundreds of examples
