"""Stage 3: long videos. The mixture of stage 2 with three times the frames, in rows of 36,864 tokens.

A row is cut over 4 devices: each holds 9,216 tokens and encodes 96 of the 384 crops.

    molmo2 train --config=experiments/stage3_long_context.py:8b,data=/mnt/molmo2,from=/mnt/runs/stage2 ...
    molmo2 train --config=experiments/stage3_long_context.py:debug,from=runs/stage2_debug --workdir=runs/stage3_debug

Numbers: arXiv 2601.10611 and the public reference's README.
"""

import _base
import stage2_sft
from ml_collections import ConfigDict


def get_config(arg: str = "4b") -> ConfigDict:
    """`arg`: see _base.Arguments; `from` is the workdir of stage 2."""
    a = _base.Arguments.parse(arg)
    c = stage2_sft.get_config(arg)
    c.steps = 2_000
    if a.debug:
        _base.shrink(c)
        return c
    c.mesh = _base.mesh(fsdp=16, context=4)
    c.microbatches = 4  # two rows on four chips at a time
    c.model.update({"remat": "gate", "vit_remat": "full"})  # 80 of 95 GiB on v5p
    # Keys are few under grouped queries: gathering them costs less than a ring does around the kernels. A ring needs
    # no memory for all of them. "zigzag" would pay for rows that are one long text; most here are videos.
    c.model.update({"context": "all_gather", "token_order": "contiguous"})
    c.data.seq_len = 36_864
    c.data.crops = 384
    c.data.pooled = 32_768  # 384 frames have 31,104 visual tokens
    c.data.vision_shards = 4
    c.data.max_frames = 384  # 191.5 s at 2 frames/s
    c.checkpoint.every = 500
    return c
