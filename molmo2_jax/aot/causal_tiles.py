"""(query, key) pairs of a causal mask that the busiest device along `context` computes: the others wait for it.

Of Q queries and S keys in one call of a kernel, by the order of the row's tokens (ops/attention/token_order.py):

                                     contiguous, the last device    zigzag, every device
    the keys of its own tokens       Q S / 2                        Q S / 2
    all keys of the row              Q (S - Q/2)                    Q S / 2
    a ring step that is not skipped  Q S                            Q S / 2: half of its queries, or half of the keys
"""


def visited_pairs(queries: float, keys: float, *, ring_step: bool, token_order: str) -> float:
    """Pairs as in the table, in the square of the unit of `queries` and `keys` (tokens or blocks)."""
    if token_order == "zigzag" or (queries == keys and not ring_step):
        return queries * keys / 2
    return queries * keys if ring_step else queries * (keys - queries / 2)
