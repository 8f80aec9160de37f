"""Stage 3: long videos. The mixture of stage 2 with three times the frames, in rows of 36,864 tokens.

64 chips of 95 GB process one row each at a time. With more chips than rows, or smaller chips, a row is sharded over
several (mesh.context): docs/pods.md has meshes for other slices.

    molmo2 train --config=experiments/stage3_long_context.py:8b,data=/mnt/molmo2,from=/mnt/runs/stage2 ...
    molmo2 train --config=experiments/stage3_long_context.py:debug,from=runs/stage2_debug --workdir=runs/stage3_debug

Values: arXiv 2601.10611 and the public reference's README.
"""

from ml_collections import ConfigDict

from experiments import _base, stage2_sft


def get_config(arg: str = "4b") -> ConfigDict:
    """`arg`: see _base.Arguments; `from` is the workdir of stage 2."""
    a = _base.Arguments.parse(arg)
    c = stage2_sft.get_config(arg)
    c.steps = 2_000
    if a.debug:
        _base.shrink(c)
        return c
    # 86 of 95 GiB on v5p at 8B. O-7B has as many kv heads as query heads; keeping their keys and values, too, it would
    # need 95 instead of 68.
    c.model.update({"remat": "attention" if a.size == "o7b" else "qkv", "vit_remat": "full"})
    c.data.row.seq_len = 36_864
    c.data.row.crops = 384
    c.data.row.pooled = 32_768  # 384 frames have 31,104 visual tokens
    c.data.view.max_frames = 384  # 191.5 s at 2 frames/s
    c.checkpoint.every = 500
    return c
