"""Packed rows written by hand, token by token, for tests of what reads them. No code that packs is used."""

import dataclasses

import numpy as np

from data_pipelines.media import crops
from data_pipelines.media.pooling import frame_pooling, image_pooling
from data_pipelines.media.token_counts import token_grids
from data_pipelines.packing.schema import RowShape, empty_row


@dataclasses.dataclass
class Visual:
    """The visual part of an example: its tokens, its crops, and the patches that each <im_patch> pools."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    pooling: list[np.ndarray] = dataclasses.field(default_factory=list)
    crops: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Turn:
    """A branch: a question and its supervised answer. Its children begin where it ends."""

    question: str
    answer: str
    weight: float = 1.0
    then: tuple["Turn", ...] = ()


def scene(time: float, height: int = 378, width: int = 378) -> np.ndarray:
    """A picture of sky, ground and a disc that moves to the right by a tenth of the width per second."""
    y, x = np.mgrid[:height, :width]
    sky = np.stack([90 + y * 110 // height, 140 + y * 80 // height, 200 + 0 * y], axis=-1)
    ground = np.stack([70 + x * 40 // width, 110 + 0 * x, 60 + 0 * x], axis=-1)
    picture = np.where((y > 0.7 * height)[..., None], ground, sky)
    near = np.hypot(x / width - 0.2 - 0.1 * time, y / height - 0.6) < 0.06
    return np.where(near[..., None], [200, 50, 40], picture).astype(np.uint8)


def video(tok, times, after="", stamp="{:.1f} ", wrapping=("<im_start>", "<im_end>")) -> Visual:
    """Frames of the scene, each after its timestamp, then the text `after`."""
    start, patch, end = (tok.special(name) for name in (wrapping[0], "<im_patch>", wrapping[1]))
    visual = Visual(pooling=list(frame_pooling(len(times))))
    for number, time in enumerate(times):
        text = stamp.format(time)
        visual.tokens += [*tok.encode(text if number == 0 else f" {text}" if text else ""), start, *[patch] * 81, end]
        visual.crops.append(crops.frame_crop(scene(time)))
    visual.tokens += tok.encode(after)
    return visual


def images(tok, *crop_grids) -> Visual:
    """One image of the scene for each of the crop_grids (rows, columns), numbered if there are several."""
    low, start, patch, column, end = (
        tok.special(name) for name in ("<low_res_im_start>", "<im_start>", "<im_patch>", "<im_col>", "<im_end>")
    )
    visual = Visual()
    for number, crop_grid in enumerate(crop_grids, 1):
        _, (rows, across) = token_grids(crop_grid)
        pooling = image_pooling(crop_grid)
        visual.pooling += list(np.where(pooling < 0, pooling, pooling + 729 * len(visual.crops)))
        visual.crops += list(
            crops.image_crops(scene(number, 266 * crop_grid[0] + 112, 266 * crop_grid[1] + 112), crop_grid)
        )
        visual.tokens += tok.encode(f"Image {number}") if len(crop_grids) > 1 else []
        grid = ([patch] * across + [column]) * rows
        visual.tokens += [low, *[patch] * 196, end, start, *grid, end]
    return visual


def row(tok, examples, tokens=4096, crops=32, pooled=4096) -> dict[str, np.ndarray]:
    """A row of examples, each a pair of a `Visual` and its branches (`Turn`), end to end as in packing/schema.py."""
    out = empty_row(RowShape(tokens, crops, pooled))
    where = crop = slot = 0
    for group, (visual, branches) in enumerate(examples, 1):
        begin, root = where, [tok.bos_id, *visual.tokens]
        pooled_ids = np.array(visual.pooling, np.int32).reshape(-1, 9)
        slots = begin + np.flatnonzero(np.array(root) == tok.special("<im_patch>"))
        count = len(slots)
        out["pooling"][slot : slot + count] = np.where(pooled_ids < 0, -1, pooled_ids + 729 * crop)
        out["visual_slots"][slot : slot + count] = slots
        out["crops"][crop : crop + len(visual.crops)] = np.array(visual.crops).reshape(-1, 729, 588)
        is_visual = np.array([tok.pieces([i])[0].startswith(("<im_", "<low_", "<frame_")) for i in root])
        out["image_group"][begin : begin + len(root)][is_visual & (np.array(root) >= tok.vocab_size)] = group
        _write(out, begin, root, [*root[1:], 0], [0.0] * len(root), 0)
        where = begin + len(root)
        for branch in branches:
            where = _write_branch(out, tok, branch, where, len(root))
        out["visible_until"][begin : begin + len(root)] = where
        crop, slot = crop + len(visual.crops), slot + count
    return out


def _write_branch(out, tok, turn, where, position) -> int:
    """Writes a branch from token `where` on and returns where its subtree ends."""
    start, end, line = tok.special("<|im_start|>"), tok.eos_id, tok.encode("\n")
    question = [start, *tok.encode(f"user\n{turn.question}"), end, *line, start, *tok.encode("assistant\n")]
    answer = tok.encode(turn.answer)
    tokens = question + answer + [end] * bool(turn.then)
    weights = [0.0] * (len(question) - 1) + [turn.weight] * (len(answer) + 1) + [0.0] * bool(turn.then)
    _write(out, where, tokens, [*tokens[1:], 0 if turn.then else end], weights, position)
    last = where + len(tokens)
    for child in turn.then:
        last = _write_branch(out, tok, child, last, position + len(tokens))
    out["visible_until"][where : where + len(tokens)] = last
    return last


def _write(out, where, tokens, targets, weights, position) -> None:
    here = slice(where, where + len(tokens))
    out["tokens"][here], out["targets"][here], out["loss_weights"][here] = tokens, targets, weights
    out["positions"][here] = range(position, position + len(tokens))


def story(tok) -> tuple[list[dict[str, np.ndarray]], list[list[dict]]]:
    """Three rows and the names of their examples: tracks, points, subtitles, crops, two images, text and a failure."""
    times = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    ball = [f"{t:.1f} 1 {200 + 100 * t:03.0f} 600" + f" 2 {800 - 80 * t:03.0f} 300" * (t > 0.7) for t in times]
    tracks = Turn("Track the balls.", f'<tracks coords="{";".join(ball)}">balls</tracks>', 0.2)
    where = Turn("Where is the ball?", '<points coords="1.0 1 300 600;2.0 2 400 600">ball</points>', 0.5)
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & <!--DATA-->"
    caption = Turn(f"Describe it. {hostile}", f"A red ball rolls.\nIt says {hostile}", 0.1)
    subtitled = video(tok, times, "subtitle\n0.0 - 0.9 Look at the ball.\n1.2 - 2.2 There <b>it</b> goes.\n")
    count = Turn("How many?", 'Counting the <points coords="1 1 300 600">ball</points> shows a total of 1.')
    large, pair = images(tok, (1, 2)), images(tok, (1, 1), (1, 1))
    both = Turn("Point to the balls.", '<points coords="1 1 300 600;2 2 400 600">balls</points>')
    chat = Turn("Say hi.", "Hi, said the penguin.", 1.0, (Turn("Again.", "Hi."), Turn("Louder.", "HI!")))
    failed = Turn("Who?", "Nobody.", 0.0)
    rows = [
        row(tok, [(subtitled, [tracks, where, caption]), (Visual(), [chat])]),
        row(tok, [(large, [count]), (pair, [both])]),
        row(tok, [(video(tok, times[:2]), [failed]), (Visual(), [Turn("A penguin?", "Yes: a penguin.")])]),
    ]
    names = [
        [("balls", "clip-1"), ("chat", "talk-1")],
        [("pixmo_points", "photo-1"), ("pixmo_points", "photos-2")],
        [("balls", "clip-<b>2"), ("chat", "talk-2")],
    ]
    named = [[{"dataset": d, "id": i, "failed": None} for d, i in one] for one in names]
    named[2][0]["failed"] = "media: clip-2.mp4 is cut off"
    return rows, named
