"""Which tokens of a row lie on which device along `context`.

"contiguous" cuts a row into n equal parts, in order. "zigzag" cuts it into 2n chunks and gives device i chunks i and
2n - 1 - i: under a causal mask early chunks have little to attend to and late ones much, so that each device gets as
much as the others. A row of eight tokens on two devices:

    contiguous   0 1 2 3 | 4 5 6 7      pairs of a causal mask   10 | 26
    zigzag       0 1 6 7 | 2 3 4 5                               18 | 18

It pays where one causal example fills the row (8 devices: the busiest has 1.86 times the mean without). Rows of videos,
whose tokens see each other, and of short examples are even as they are, and cut into chunks they have more tiles and
fewer empty shards: benchmarks/token_order.py.

Rows are made in the order in which they are read, and `arrange` brings them into the other as they are put on devices.
Who sees whom follows the index in the row, which `row_index` gives for each place.
"""

from collections.abc import Mapping

import numpy as np

from molmo2_jax.data.schema import FIELDS

TOKEN_ORDERS = ("contiguous", "zigzag")


def row_index(order: str, places, length: int, ways: int):
    """Index in the row of the token at each of `places`, an integer array of numpy or of jax.

    Args:
      order: one of TOKEN_ORDERS.
      length: tokens of the whole row, S.
      ways: devices along `context`, n.

    Raises:
      ValueError: an order that is unknown, or a length that it cannot cut.
    """
    if order not in TOKEN_ORDERS:
        raise ValueError(f"token_order {order!r} is unknown; there are {sorted(TOKEN_ORDERS)}")
    if order == "contiguous" or ways == 1:
        return places
    if length % (2 * ways):
        raise ValueError(f'token_order "zigzag" cuts a row into {2 * ways} chunks; they do not divide {length} tokens')
    size = length // (2 * ways)
    device, second = places // (2 * size), places // size % 2
    chunk = device + second * (2 * ways - 1 - 2 * device)
    return chunk * size + places % size


def arrange(rows: Mapping[str, np.ndarray], order: str, ways: int) -> dict[str, np.ndarray]:
    """Arrays of schema.FIELDS as [B, ...], in row order -> the same rows with tokens in `order`."""
    if order == "contiguous" or ways == 1:
        return dict(rows)
    length = rows["tokens"].shape[1]
    index_S = row_index(order, np.arange(length), length, ways)
    place_S = np.append(np.argsort(index_S), length).astype(np.int32)  # S, "unused", stays S
    per_token = {name for name, field in FIELDS.items() if field.dims == "S"}
    arranged = {name: x[:, index_S] if name in per_token else x for name, x in rows.items()}
    return arranged | {"visual_slots": place_S[rows["visual_slots"]]}
