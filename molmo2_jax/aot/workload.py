"""The rows that a step is assumed to process, since its cost depends on them: a batch of one full row, repeated.

    tokens   all S, one causal example: S (S + 1) / 2 visible pairs
    crops    all C, each a video frame pooled 3x3: 81 visual tokens
    loss     on every token that is not visual

Of the devices that share a row along `context`, the one with most work counts. Only rows with bidirectional images are
more expensive. The same row gives the model's FLOPs and the trip counts that depend on the data, so that time and
FLOPs are of one workload.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np

from data_pipelines.media.pooling import POOL
from data_pipelines.media.token_counts import TOKENS_PER_FRAME
from data_pipelines.packing import schema
from molmo2_jax import sharding
from molmo2_jax.aot.causal_tiles import visited_pairs
from molmo2_jax.aot.hlo import Instruction
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.run_config import RunConfig
from molmo2_jax.ops.attention.blockwise import BLOCK
from molmo2_jax.ops.attention.token_order import row_index
from molmo2_jax.train.model_flops import flops_by_part


@dataclasses.dataclass(frozen=True)
class Workload:
    """Sizes of one step. `flops`: {part: model FLOPs of the whole batch}."""

    tokens: int  # of the batch
    visual: int  # of a row
    flops: dict[str, float]
    loss_chunks: int  # trips of the loss loop on the busiest device, per microbatch
    attention_tiles: int  # trips of the blockwise attention loop, likewise
    ring_tiles: int  # the same in a ring step that is not skipped

    def trips(self, loop: Instruction, scope: str | None) -> int | None:
        """Iterations of a loop in a named scope, whose limit the program computes; None if unknown."""
        if scope == "loss":
            return self.loss_chunks
        if scope == "attention":
            return self.ring_tiles if "/cond/" in loop.op_name else self.attention_tiles
        return None


def full_row(shape: schema.RowShape) -> dict[str, np.ndarray]:
    """The row of the module's docstring, [1, ...]; `pooling` numbers the crops of the row, not of a vision shard."""
    row = {name: np.copy(a)[None] for name, a in schema.empty_row(shape).items()}
    visual = min(shape.crops * TOKENS_PER_FRAME, shape.pooled, shape.seq_len)
    row["visible_until"][:] = shape.seq_len
    row["pooling"][:, :visual] = np.arange(visual * POOL).reshape(visual, POOL)
    row["visual_slots"][:, :visual] = np.arange(visual)
    row["loss_weights"][:, visual:] = 1.0
    return row


def workload(
    run: RunConfig, a: Molmo2Config, shape: schema.RowShape, mesh: Mapping[str, int], *, batch: int, microbatches: int
) -> Workload:
    """The workload of `batch` full rows. `mesh`: {axis: devices}."""
    row = full_row(shape)
    rows = -(-batch // (math.prod(mesh[axis] for axis in sharding.ROWS) * microbatches))  # per device
    context = mesh[sharding.CONTEXT]
    index = row_index(run.token_order, np.arange(shape.seq_len), shape.seq_len, context)
    supervised = int(np.count_nonzero(row["loss_weights"][0, index].reshape(context, -1), axis=1).max())
    keys = -(-shape.seq_len // BLOCK)
    queries = keys if run.context == "ulysses" else -(-shape.seq_len // (context * BLOCK))
    if run.context == "ring":
        keys = queries
    tiles = functools.partial(visited_pairs, queries, keys, token_order=run.token_order)
    return Workload(
        tokens=batch * shape.seq_len,
        visual=int((row["visual_slots"] < shape.seq_len).sum()),
        flops={part: batch * flops for part, flops in flops_by_part(a, row).items()},
        loss_chunks=-(-rows * supervised // run.loss_chunk),
        attention_tiles=math.ceil(rows * (tiles(ring_step=False) + queries / 2)),
        ring_tiles=math.ceil(rows * tiles(ring_step=True)),
    )
