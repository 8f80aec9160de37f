"""What a step is assumed to work on, since its cost follows what the rows hold: one full row, many times.

    tokens   every token of the row is used, one example, causal: S (S + 1) / 2 visible pairs
    crops    all C, each a video frame pooled 3x3: 81 visual tokens
    loss     on every token that is not visual

Of the devices that `context` cuts a row over, the one with most work counts. Rows like this are the dearest a run meets
but for bidirectional images. The same row gives the model's FLOPs and the
trips of the loops whose ends the program computes, so that time and FLOPs are of one workload.
"""

import dataclasses
import functools
import math

import numpy as np

from molmo2_jax import sharding
from molmo2_jax.data import schema
from molmo2_jax.data.token_order import row_index
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.ops.blockwise_attention import BLOCK
from molmo2_jax.tools.aot.causal import visited
from molmo2_jax.tools.aot.hlo import Instruction
from molmo2_jax.train.config import TrainConfig
from molmo2_jax.train.flops import flops_by_part

FRAME_TOKENS = schema.PATCHES // schema.POOL  # visual tokens of a frame pooled 3x3


@dataclasses.dataclass(frozen=True)
class Workload:
    """The numbers of one step. `flops`: model FLOPs of the whole batch by part."""

    tokens: int  # of the batch
    visual: int  # of a row
    flops: dict[str, float]
    loss_chunks: int  # trips of the loss' loop on the device that has most, a microbatch
    attention_tiles: int  # trips of blockwise attention's loop on the device that has most, a microbatch
    ring_tiles: int  # the same in a step of a ring that is not skipped

    def trips(self, loop: Instruction, frames: tuple[str, ...]) -> int | None:
        """How often a loop runs whose end the program computes; None for one that is not known."""
        if any("ops/loss.py" in frame for frame in frames):
            return self.loss_chunks
        if any("ops/attention.py" in frame or "ops/blockwise_attention.py" in frame for frame in frames):
            return self.ring_tiles if "/cond/" in loop.op_name else self.attention_tiles
        return None


def full_row(shape: schema.RowShape) -> dict[str, np.ndarray]:
    """The row of the module's picture, [1, …]; `pooling` counts crops through the row, not the shard, for counting."""
    row = {name: np.copy(a)[None] for name, a in schema.empty_row(dataclasses.replace(shape, shards=1)).items()}
    visual = min(shape.crops * FRAME_TOKENS, shape.pooled, shape.tokens)
    row["visible_until"][:] = shape.tokens
    row["pooling"][:, :visual] = np.arange(visual * schema.POOL).reshape(visual, schema.POOL)
    row["visual_slots"][:, :visual] = np.arange(visual)
    row["loss_weights"][:, visual:] = 1.0
    return row


def workload(c: TrainConfig, a: Molmo2Config, shape: schema.RowShape) -> Workload:
    """What a step of the config does on full rows."""
    row = full_row(shape)
    rows = -(-c.batch // (math.prod(c.mesh[axis] for axis in sharding.ROWS) * c.microbatches))  # of a device
    context = c.mesh[sharding.CONTEXT]
    index = row_index(c.model.token_order, np.arange(shape.tokens), shape.tokens, context)
    learned = int(np.count_nonzero(row["loss_weights"][0, index].reshape(context, -1), axis=1).max())
    keys = -(-shape.tokens // BLOCK)
    queries = keys if c.model.context == "ulysses" else -(-shape.tokens // (context * BLOCK))
    if c.model.context == "ring":
        keys = queries
    tiles = functools.partial(visited, queries, keys, token_order=c.model.token_order)
    return Workload(
        tokens=c.batch * shape.tokens,
        visual=int((row["visual_slots"] < shape.tokens).sum()),
        flops={part: c.batch * flops for part, flops in flops_by_part(a, row).items()},
        loss_chunks=-(-rows * learned // c.model.loss_chunk),
        attention_tiles=math.ceil(rows * (tiles(ring_step=False) + queries / 2)),
        ring_tiles=math.ceil(rows * tiles(ring_step=True)),
    )
