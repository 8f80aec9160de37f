"""Which tokens of a row each device along `context` holds.

"contiguous" splits a row into n equal parts, in order. "zigzag" splits it into 2n chunks and gives device i chunks i
and 2n - 1 - i: under a causal mask early chunks have few keys and late chunks many, so that every device gets the same
number of pairs. A row of eight tokens on two devices:

    contiguous   0 1 2 3 | 4 5 6 7      pairs of a causal mask   10 | 26
    zigzag       0 1 6 7 | 2 3 4 5                               18 | 18

"zigzag" pays where one causal example fills the row (8 devices: the busiest has 1.86 times the mean without). Rows of
videos, whose tokens see each other, and rows of short examples are balanced already; in chunks they have more tiles and
fewer empty shards: benchmarks/token_order.py.

The data side makes rows in reading order, and `arrange` permutes them before they are put on devices. The mask uses
the index in the row, which `row_index` computes for each slot.
"""

from collections.abc import Mapping

import jax
import numpy as np

from data_pipelines.packing.schema import FIELDS

TOKEN_ORDERS = ("contiguous", "zigzag")


def row_index(
    order: str, slots: int | np.ndarray | jax.Array, length: int, shards: int
) -> int | np.ndarray | jax.Array:
    """Index in the row of the token at each of `slots`, integers in the order in which devices hold them.

    Args:
      order: one of TOKEN_ORDERS.
      length: tokens of the whole row, S.
      shards: devices along `context`, n.

    Raises:
      ValueError: `order` is unknown, or `length` cannot be split into its chunks.
    """
    if order not in TOKEN_ORDERS:
        raise ValueError(f"token_order {order!r} is unknown; the choices are {sorted(TOKEN_ORDERS)}")
    if order == "contiguous" or shards == 1:
        return slots
    if length % (2 * shards):
        raise ValueError(f'token_order "zigzag" needs {2 * shards} equal chunks; they do not divide {length} tokens')
    size = length // (2 * shards)
    device, second = slots // (2 * size), slots // size % 2
    chunk = device + second * (2 * shards - 1 - 2 * device)
    return chunk * size + slots % size


def arrange(rows: Mapping[str, np.ndarray], order: str, shards: int) -> dict[str, np.ndarray]:
    """Arrays of schema.FIELDS as [B, ...], in row order -> the same rows with tokens in `order`."""
    if order == "contiguous" or shards == 1:
        return dict(rows)
    length = rows["tokens"].shape[1]
    index_S = row_index(order, np.arange(length), length, shards)
    slot_S = np.append(np.argsort(index_S), length).astype(np.int32)  # S, "unused", stays S
    per_token = {name for name, field in FIELDS.items() if field.dims == "S"}
    arranged = {name: x[:, index_S] if name in per_token else x for name, x in rows.items()}
    return arranged | {"visual_slots": slot_S[rows["visual_slots"]]}
