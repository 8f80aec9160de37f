"""What of a causal mask the busiest device along `context` visits: for it the others wait.

Pairs of Q queries and S keys in one call of a kernel, by how the row is cut (data/token_order.py):

                                     contiguous, the last device    zigzag, every device
    the keys of its own tokens       Q S / 2                        Q S / 2
    all keys of the row              Q (S - Q/2)                    Q S / 2
    a step of a ring, not skipped    Q S                            Q S / 2: half of its queries, or half of the keys
"""


def visited(queries: float, keys: float, *, ring_step: bool, token_order: str) -> float:
    """Pairs as in the table, in the square of the unit of `queries` and `keys`."""
    if token_order == "zigzag" or (queries == keys and not ring_step):
        return queries * keys / 2
    return queries * keys if ring_step else queries * (keys - queries / 2)
