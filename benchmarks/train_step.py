"""A training step compared with transformers' Molmo2 in torch on the same rows: forward, backward, clipping, AdamW.

    python benchmarks/train_step.py             needs the packages of the tests (`make bench`); about four minutes

float32, two threads per side, steps taken in turns. Both train the same parameters (all except the base embedding,
clipped and updated by group as in experiments/overfit_video_point.py) from the same weights with the same loss; the run
stops unless the losses of the first two steps agree. The rows, of equal length:

    video   16 frames and a tree of 4 questions about them
    text    8 conversations, packed; the longest is eleven times the shortest

transformers has neither trees nor packing. Two ways to train it on a row:

    usual     as its users do: one padded sequence per question (each with the video) or per conversation
    by hand   the same row, with a 4-D mask and positions made from ours, and logits only where there is loss

The output also gives the time that the row's FLOPs (train/model_flops.py) take at the rate of one large matmul of ours.

Both ways use torch's scaled_dot_product_attention; transformers' "eager" is slower. Compare the ratios, measured on
otherwise idle cores: torch's threads wait for each other, so that other work slows it down several times.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else torch's waiting threads spin during our steps

import dataclasses
import importlib
import json
import statistics
import time
from typing import NamedTuple

import jax
import numpy as np
import torch
import transformers
from torch.nn.functional import embedding

from data_pipelines.media.crops import PATCHES
from data_pipelines.media.pooling import frame_pooling
from data_pipelines.packing.schema import RowShape, empty_row
from data_pipelines.sequence import message_tree, visual_layout
from data_pipelines.sequence.view_config import ViewConfig
from data_pipelines.text.tokenizer import SPECIAL_TOKENS
from experiments import overfit_video_point
from molmo2_jax import sharding
from molmo2_jax.models import structure as parameters
from molmo2_jax.models.config import ConnectorConfig, Molmo2Config, preset
from molmo2_jax.ops.attention import mask
from molmo2_jax.train import config as train_config
from molmo2_jax.train.model_flops import model_flops
from molmo2_jax.train.optimizer import schedules
from molmo2_jax.train.peak_flops import peak_flops
from molmo2_jax.train.setup import Setup, set_up
from molmo2_jax.train.step import make_state
from molmo2_jax.weights.hf.config import write_config
from molmo2_jax.weights.hf.source import tensors_of
from molmo2_jax.weights.random_init import init_params

try:
    importlib.import_module("torchvision")
except RuntimeError:  # a wheel for CUDA next to a torch for CPUs: needs two operators, before transformers imports it
    operators = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

REPEATS, THREADS = 5, 2
FRAMES = 16
TREE = ((22, 12), (18, 40), (30, 110), (26, 70))  # tokens of each question and its answer
SHARES = (3, 5, 6, 9, 11, 14, 19, 33)  # percent of the text row's tokens: octiles of a log-normal, sigma 0.8


class Tokens:
    """Stands for a tokenizer: special tokens after a small vocabulary, text byte by byte."""

    def __init__(self, vocab: int):
        self.vocab_size = vocab

    def special(self, name: str) -> int:
        return self.vocab_size + SPECIAL_TOKENS.index(name)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


class Inputs(NamedTuple):
    """The arguments of transformers' model, and index, weight and target of each supervised token."""

    arguments: dict[str, torch.Tensor]
    supervised: tuple[torch.Tensor, torch.Tensor]  # (sequence, index among the logits)
    weights: torch.Tensor
    targets: torch.Tensor


def architecture() -> Molmo2Config:
    """Molmo2-4B with every width an eighth and one layer of eight or nine.

    Heads keep their size and crops theirs; the vocabulary keeps its share of the parameters.
    """
    c = preset("molmo2_4b")
    vit = dataclasses.replace(c.vit, width=144, heads=2, mlp=538, layers=3, feature_layers=(2, 1))
    llm = dataclasses.replace(c.llm, width=320, heads=4, kv_heads=1, mlp=1216, layers=4, vocab=2110)
    return Molmo2Config("eighth", vit, ConnectorConfig(heads=2, head_dim=72, mlp=1216), llm)


def rows(c: Molmo2Config, view: ViewConfig) -> dict[str, dict[str, np.ndarray]]:
    """The two rows, without batch dimension; random text tokens and pixels."""
    rng, tok = np.random.default_rng(0), Tokens(c.llm.vocab)

    def turn(question: int, answer: int) -> message_tree.Turn:
        return message_tree.Turn(
            message_tree.ROOT, *(rng.integers(256, c.llm.vocab, n).tolist() for n in (question, answer)), None, 1.0
        )

    def example(visual: visual_layout.VisualTokens, turns: list[message_tree.Turn]) -> message_tree.ExampleTokens:
        never = [tok.special(name) for name in visual_layout.VISUAL]
        return message_tree.lay_out(visual, turns, bos=1, eos=1, length_weight=4.0, never_targets=never)

    frames = visual_layout.video_layout([i / 2 for i in range(FRAMES)], None, tok, view).tokens(tok)
    video = example(frames, [turn(*lengths) for lengths in TREE])
    size = len(video.tokens)
    lengths = [size * share // 100 for share in SHARES]
    lengths[-1] += size - sum(lengths)
    texts = [example(visual_layout.NoVisual().tokens(tok), [turn(n // 4, n - n // 4 - 1)]) for n in lengths]
    out = {
        "video": _lay_out_row([video], RowShape(size, FRAMES, len(frames.slots))),
        "text": _lay_out_row(texts, RowShape(size, 0, 0)),
    }
    out["video"]["crops"][:] = rng.integers(0, 256, out["video"]["crops"].shape)
    out["video"]["pooling"][:] = frame_pooling(FRAMES)
    return out


def _lay_out_row(examples: list[message_tree.ExampleTokens], shape: RowShape) -> dict[str, np.ndarray]:
    row, start = empty_row(shape), 0
    for e in examples:
        here = slice(start, start + len(e.tokens))
        for name in ("tokens", "targets", "loss_weights", "positions", "image_group"):
            row[name][here] = getattr(e, name)
        row["visible_until"][here] = e.visible_until + start
        row["visual_slots"][: len(e.visual_slots)] = e.visual_slots  # only the row with a single example has any
        start = here.stop
    return row


def allowed(row: dict[str, np.ndarray]) -> np.ndarray:
    """bool[S, S]: whether query i sees key j."""
    vis = mask.Visibility(np.arange(len(row["tokens"])), row["visible_until"], row["image_group"])
    return np.asarray(mask.allowed(vis, vis))


def by_hand(row: dict[str, np.ndarray]) -> Inputs:
    """The row itself, with its mask."""
    hidden = torch.from_numpy(~allowed(row))
    where = torch.from_numpy(np.flatnonzero(row["loss_weights"]))
    arguments = {
        "input_ids": torch.from_numpy(row["tokens"])[None].long(),
        "position_ids": torch.from_numpy(row["positions"])[None].long(),
        "mm_token_type_ids": torch.from_numpy(row["image_group"])[None].long(),
        "attention_mask": torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)[None, None],
        "logits_to_keep": where,
    }
    supervised = (torch.zeros_like(where), torch.arange(len(where)))
    return Inputs(arguments | _media(row, 1), supervised, *_weights_and_targets(row, where.numpy()))


def usual(row: dict[str, np.ndarray]) -> Inputs:
    """One sequence for each leaf of the row: all tokens that the leaf's last token sees."""
    visible = allowed(row)
    ends = np.flatnonzero(visible.sum(0) == 1)  # only a last token sees itself as a key
    paths = [np.flatnonzero(visible[end]) for end in ends]
    longest = max(map(len, paths))

    def padded(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.pad(values[path], (0, longest - len(path))) for path in paths])).long()

    weights = padded(row["loss_weights"] > 0)
    sequence, index = torch.nonzero(weights, as_tuple=True)
    arguments = {
        "input_ids": padded(row["tokens"]),
        "mm_token_type_ids": padded(row["image_group"]),
        "attention_mask": padded(np.ones_like(row["tokens"])),
    }
    where = np.array([paths[s][p] for s, p in zip(sequence, index, strict=True)])
    return Inputs(arguments | _media(row, len(paths)), (sequence, index), *_weights_and_targets(row, where))


def _media(row: dict[str, np.ndarray], copies: int) -> dict[str, torch.Tensor]:
    """The row's video, once for each of its sequences."""
    if not len(row["crops"]):
        return {}
    pixels = torch.from_numpy(row["crops"].astype(np.float32) / 127.5 - 1)
    pooling = torch.from_numpy(row["pooling"]).long()
    return {
        "pixel_values_videos": pixels.repeat(copies, 1, 1),
        "video_token_pooling": torch.cat([pooling + i * FRAMES * PATCHES for i in range(copies)]),
        "video_grids": torch.tensor([[FRAMES, 9, 9]] * copies),
    }


def _weights_and_targets(row: dict[str, np.ndarray], where: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(row["loss_weights"][where]), torch.from_numpy(row["targets"][where]).long()


class Ours:
    """Our step, as the training loop runs it."""

    def __init__(self, setup: Setup, params: parameters.Params, row):
        copies = {name: p.copy() for name, p in params.items()}  # the step donates its state
        self.state = make_state(copies, setup.assigned, setup.optimizer)
        self.row = row
        self.run = setup.step.lower(self.state, row).compile()

    def step(self) -> float:
        self.state, metrics = self.run(self.state, self.row)
        return {name: float(x) for name, x in jax.device_get(metrics).items()}["loss"]

    def megabytes(self) -> float:
        """Temporary memory of the compiled step."""
        return self.run.memory_analysis().temp_size_in_bytes / 1e6


class SplitEmbedding(torch.nn.Module):
    """An embedding whose first rows are frozen, so that torch computes no gradient for them."""

    def __init__(self, table: torch.Tensor, base: int):
        super().__init__()
        self.base = torch.nn.Parameter(table[:base].clone(), requires_grad=False)
        self.new = torch.nn.Parameter(table[base:].clone())

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        n = len(self.base)
        base, new = embedding(ids.clamp(max=n - 1), self.base), embedding((ids - n).clamp(min=0), self.new)
        return torch.where((ids < n)[..., None], base, new)


class InMemory(NamedTuple):
    """A ParameterSource."""

    where: str
    arrays: parameters.Params

    def read(self, name: str, layer: int | None) -> np.ndarray:
        return np.asarray(self.arrays[name] if layer is None else self.arrays[name][layer])


class Theirs:
    """transformers' model with torch's fused AdamW."""

    def __init__(self, s: parameters.Structure, params, c: train_config.TrainConfig, inputs: Inputs):
        hf = transformers.Molmo2Config(**write_config(s.config, 4096, "float32"))
        model = transformers.Molmo2ForConditionalGeneration._from_config(hf, attn_implementation="sdpa")
        arrays, make = tensors_of(InMemory("our parameters", params), s, "transformers", None)
        model.load_state_dict({key: torch.from_numpy(make(key).copy()) for key in arrays})
        decoder = model.model.language_model
        decoder.embed_tokens = SplitEmbedding(decoder.embed_tokens.weight.detach(), s.config.llm.vocab)
        model.lm_head.weight = decoder.embed_tokens.base
        self.model, self.inputs, self.c, self.count = model.train(), inputs, c, 0
        self.groups = {
            "connector": [*model.model.multi_modal_projector.parameters(), decoder.embed_tokens.new],
            "vit": list(model.model.vision_tower.parameters()),
            "llm": [*decoder.layers.parameters(), *decoder.norm.parameters()],
        }
        lr = schedules(c.optim, c.steps)
        self.lr = {group: [float(lr[group](n)) for n in range(REPEATS + 2)] for group in self.groups}
        groups = [{"params": group} for group in self.groups.values()]
        o = c.optim
        betas = (o.b1, o.b2)
        self.adamw = torch.optim.AdamW(groups, betas=betas, eps=o.eps, weight_decay=o.weight_decay, fused=True)

    def step(self) -> float:
        _, supervised, weights, targets = self.inputs
        logits = self.model(**self.inputs.arguments, use_cache=False).logits[supervised]
        lse = logits.logsumexp(-1)
        ce = lse - logits.gather(1, targets[:, None])[:, 0]
        loss = (weights * (ce + self.c.z_loss * lse**2)).sum() / weights.sum()
        self.adamw.zero_grad()
        loss.backward()
        for group, (name, members) in zip(self.adamw.param_groups, self.groups.items(), strict=True):
            group["lr"] = self.lr[name][self.count]
            torch.nn.utils.clip_grad_norm_(members, self.c.optim.clip)
        self.adamw.step()
        self.count += 1
        return loss.item()


def measure(sides: dict[str, Ours | Theirs]) -> dict[str, list[float]]:
    """Seconds of REPEATS steps of each side, taken in turns after two whose losses are compared."""
    for step in (1, 2):
        losses = {name: side.step() for name, side in sides.items()}
        if max(losses.values()) - min(losses.values()) > 1e-4 * max(losses.values()):
            raise AssertionError(f"step {step} is not the same computation on all sides: losses {losses}")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, side in sides.items():
            start = time.perf_counter()
            side.step()
            times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Prints a table, then one line of JSON: medians in seconds, and their ratios to ours."""
    torch.set_num_threads(THREADS)
    recipe = overfit_video_point.get_config()
    recipe.model.update(loss_chunk=256, remat="dots", vit_remat="dots")
    c = train_config.read(recipe.to_dict())
    setup = set_up(c, jax.devices()[:1], architecture())
    s = setup.structure
    result: dict[str, dict] = {}
    peak, _ = peak_flops(jax.devices()[0])
    with jax.set_mesh(setup.mesh):
        params = init_params(s, c.seed)
        print(f"a large matmul: {peak / 1e9:.0f} GFLOP/s")
        print(f"{s.count():,} parameters; seconds per step, median of {REPEATS} (fastest to slowest)")
        for name, row in rows(s.config, c.data.view).items():
            ours = Ours(setup, params, sharding.put_rows({field: a[None] for field, a in row.items()}, setup.mesh))
            theirs = {"usual": usual(row), "by hand": by_hand(row)}
            times = measure({"ours": ours} | {name: Theirs(s, params, c, x) for name, x in theirs.items()})
            medians = {side: statistics.median(t) for side, t in times.items()}
            ratios = {side: t / medians["ours"] for side, t in medians.items() if side != "ours"}
            print(
                f"\n{name}: {len(row['tokens']):,} tokens, {np.count_nonzero(row['loss_weights'])} of them supervised, "
                f"{allowed(row).mean():.0%} of pairs allowed, {ours.megabytes():.0f} MB of temporary memory"
            )
            flops = model_flops(s.config, {field: a[None] for field, a in row.items()})
            bound = flops / peak
            most = medians["by hand"] / bound
            print(f"  {flops / 1e9:.0f} GFLOP at that rate: {bound:.2f} s, {most:.1f} times as fast as by hand")
            for side, t in times.items():
                label = side if side == "ours" else f"transformers, {side}"
                ratio = "" if side == "ours" else f"   ours is {ratios[side]:.2f} times as fast"
                print(f"  {label:<22}{medians[side]:7.2f} ({min(t):.2f} to {max(t):.2f}){ratio}")
            result[name] = {"seconds": medians, "ratio": ratios, "bound": bound}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
