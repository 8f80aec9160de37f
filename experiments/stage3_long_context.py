"""Stage 3: long videos. The mixture of stage 2 with three times the frames, in rows of 36,864 tokens.

A row is cut over 2 devices: each holds 18,432 tokens and encodes 192 of the 384 crops.

    molmo2 train --config=experiments/stage3_long_context.py:8b,data=/mnt/molmo2,from=gs://bucket/stage2 ...
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
    c.mesh = _base.mesh(fsdp=32, context=2)  # 64 chips; further cuts: context 4, 8 with "ring" where memory is short
    c.microbatches = 4  # one row on two chips at a time
    c.model.update({"vit_remat": "full", "context": "all_gather", "token_order": "zigzag"})
    c.data.seq_len = 36_864
    c.data.crops = 384
    c.data.pooled = 32_768  # 384 frames have 31,104 visual tokens
    c.data.vision_shards = 2
    c.data.max_frames = 384  # 191.5 s at 2 frames/s
    c.checkpoint.every = 500
    return c
