"""Packed rows written by hand, token by token, for tests of what reads them: nothing here is the code that packs."""

import dataclasses

import numpy as np

from molmo2_jax.data import views
from molmo2_jax.data.schema import RowShape, empty_row


@dataclasses.dataclass
class Visual:
    """What an example begins with: tokens, of which <im_patch> pool `pooling` (crops counted from 0), and its crops."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    pooling: list[np.ndarray] = dataclasses.field(default_factory=list)
    crops: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Said:
    """A branch: what is asked and learned. Children begin where it ends."""

    question: str
    answer: str
    weight: float = 1.0
    then: tuple["Said", ...] = ()


def scene(time: float, height: int = 378, width: int = 378) -> np.ndarray:
    """A picture to look at: a sky, a ground and a disc that moves to the right by a tenth of the width a second."""
    y, x = np.mgrid[:height, :width]
    sky = np.stack([90 + y * 110 // height, 140 + y * 80 // height, 200 + 0 * y], axis=-1)
    ground = np.stack([70 + x * 40 // width, 110 + 0 * x, 60 + 0 * x], axis=-1)
    picture = np.where((y > 0.7 * height)[..., None], ground, sky)
    near = np.hypot(x / width - 0.2 - 0.1 * time, y / height - 0.6) < 0.06
    return np.where(near[..., None], [200, 50, 40], picture).astype(np.uint8)


def video(tok, times, after="", stamp="{:.1f} ", wrapping=("<im_start>", "<im_end>")) -> Visual:
    """Frames of the scene, each after its timestamp, and a text after the last of them."""
    start, patch, end = (tok.special(name) for name in (wrapping[0], "<im_patch>", wrapping[1]))
    seen = Visual(pooling=list(views.frame_pooling(len(times))))
    for number, time in enumerate(times):
        text = stamp.format(time)
        seen.tokens += [*tok.encode(text if number == 0 else f" {text}" if text else ""), start, *[patch] * 81, end]
        seen.crops.append(views.frame_view(scene(time)))
    seen.tokens += tok.encode(after)
    return seen


def images(tok, *tilings) -> Visual:
    """A scene cut to each of the tilings (rows, columns), named where there are several."""
    low, start, patch, column, end = (
        tok.special(name) for name in ("<low_res_im_start>", "<im_start>", "<im_patch>", "<im_col>", "<im_end>")
    )
    seen = Visual()
    for number, tiling in enumerate(tilings, 1):
        _, (rows, across) = views.image_grid(tiling)
        pooling = views.image_pooling(tiling)
        seen.pooling += list(np.where(pooling < 0, pooling, pooling + 729 * len(seen.crops)))
        seen.crops += list(views.image_views(scene(number, 266 * tiling[0] + 112, 266 * tiling[1] + 112), tiling))
        seen.tokens += tok.encode(f"Image {number}") if len(tilings) > 1 else []
        grid = ([patch] * across + [column]) * rows
        seen.tokens += [low, *[patch] * 196, end, start, *grid, end]
    return seen


def row(tok, examples, tokens=4096, crops=32, pooled=4096) -> dict[str, np.ndarray]:
    """Examples, each a pair of a `Visual` and its branches (`Said`), end to end as in data/schema.py."""
    out = empty_row(RowShape(tokens, crops, pooled, 1))
    where = crop = slot = 0
    for group, (seen, branches) in enumerate(examples, 1):
        begin, root = where, [tok.bos_id, *seen.tokens]
        pooled_ids = np.array(seen.pooling, np.int32).reshape(-1, 9)
        slots = begin + np.flatnonzero(np.array(root) == tok.special("<im_patch>"))
        count = len(slots)
        out["pooling"][slot : slot + count] = np.where(pooled_ids < 0, -1, pooled_ids + 729 * crop)
        out["visual_slots"][slot : slot + count] = slots
        out["crops"][crop : crop + len(seen.crops)] = np.array(seen.crops).reshape(-1, 729, 588)
        visual = np.array([tok.pieces([i])[0].startswith(("<im_", "<low_", "<frame_")) for i in root])
        out["image_group"][begin : begin + len(root)][visual & (np.array(root) >= tok.vocab_size)] = group
        _write(out, begin, root, [*root[1:], 0], [0.0] * len(root), 0)
        where = begin + len(root)
        for branch in branches:
            where = _branch(out, tok, branch, where, len(root))
        out["visible_until"][begin : begin + len(root)] = where
        crop, slot = crop + len(seen.crops), slot + count
    return out


def _branch(out, tok, said, where, position) -> int:
    """Write a branch from token `where` on and return where it ends, with what follows it."""
    start, end, line = tok.special("<|im_start|>"), tok.eos_id, tok.encode("\n")
    asked = [start, *tok.encode(f"user\n{said.question}"), end, *line, start, *tok.encode("assistant\n")]
    told = tok.encode(said.answer)
    tokens = asked + told + [end] * bool(said.then)
    weights = [0.0] * (len(asked) - 1) + [said.weight] * (len(told) + 1) + [0.0] * bool(said.then)
    _write(out, where, tokens, [*tokens[1:], 0 if said.then else end], weights, position)
    last = where + len(tokens)
    for child in said.then:
        last = _branch(out, tok, child, last, position + len(tokens))
    out["visible_until"][where : where + len(tokens)] = last
    return last


def _write(out, where, tokens, targets, weights, position) -> None:
    here = slice(where, where + len(tokens))
    out["tokens"][here], out["targets"][here], out["loss_weights"][here] = tokens, targets, weights
    out["positions"][here] = range(position, position + len(tokens))


def story(tok) -> tuple[list[dict[str, np.ndarray]], list[list[dict]]]:
    """Three rows and the names of their examples: tracks, points, subtitles, tiles, two images, text, a failure."""
    times = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    ball = [f"{t:.1f} 1 {200 + 100 * t:03.0f} 600" + f" 2 {800 - 80 * t:03.0f} 300" * (t > 0.7) for t in times]
    tracks = Said("Track the balls.", f'<tracks coords="{";".join(ball)}">balls</tracks>', 0.2)
    where = Said("Where is the ball?", '<points coords="1.0 1 300 600;2.0 2 400 600">ball</points>', 0.5)
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & <!--FILL-->"
    caption = Said(f"Describe it. {hostile}", f"A red ball rolls.\nIt says {hostile}", 0.1)
    spoken = video(tok, times, "subtitle\n0.0 - 0.9 Look at the ball.\n1.2 - 2.2 There <b>it</b> goes.\n")
    count = Said("How many?", 'Counting the <points coords="1 1 300 600">ball</points> shows a total of 1.')
    tiled, pair = images(tok, (1, 2)), images(tok, (1, 1), (1, 1))
    both = Said("Point to the balls.", '<points coords="1 1 300 600;2 2 400 600">balls</points>')
    chat = Said("Say hi.", "Hi, said the penguin.", 1.0, (Said("Again.", "Hi."), Said("Louder.", "HI!")))
    failed = Said("Who?", "Nobody.", 0.0)
    rows = [
        row(tok, [(spoken, [tracks, where, caption]), (Visual(), [chat])]),
        row(tok, [(tiled, [count]), (pair, [both])]),
        row(tok, [(video(tok, times[:2]), [failed]), (Visual(), [Said("A penguin?", "Yes: a penguin.")])]),
    ]
    names = [
        [("balls", "clip-1"), ("chat", "talk-1")],
        [("pixmo_points", "photo-1"), ("pixmo_points", "photos-2")],
        [("balls", "clip-<b>2"), ("chat", "talk-2")],
    ]
    named = [[{"dataset": d, "id": i, "failed": None} for d, i in one] for one in names]
    named[2][0]["failed"] = "media: clip-2.mp4 is cut off"
    return rows, named
