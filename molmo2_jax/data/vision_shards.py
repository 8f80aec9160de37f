"""Vision shards: which device of a context group encodes which image or frame.

Under context parallelism the crops C and pooled tokens G of a row are cut into equal shards, one a device. Each device
pools only crops that it encoded itself, so an image with all its crops, or one video frame, lies in one shard. Three
images of 9, 2 and 3 crops and a video of 4 frames, in a row of 18 crops and 2 shards:

    units    i9  i2  i3  f  f  f  f               (crops, pooled) each: (9, 1162), (2, 392), (3, 518), (1, 81) x 4
    shards   0   1   1   1  1  1  1               9 of 9 and 9 of 9 crops
"""

from collections.abc import Sequence


def assign(units: Sequence[tuple[int, int]], shards: int, crops: int, pooled: int) -> list[int] | None:
    """The shard of each unit, (crops, pooled) of an image or a frame; None when they were found not to fit.

    `crops` and `pooled` are a whole row's, `shards` divides both. The largest unit is placed first, in the first shard
    with room, so that the frames of a video stay together and in order.
    """
    if shards == 1:
        fits = sum(c for c, _ in units) <= crops and sum(p for _, p in units) <= pooled
        return [0] * len(units) if fits else None
    if crops % shards or pooled % shards:
        raise ValueError(f"{crops} crops and {pooled} pooled tokens cannot be cut into {shards} equal shards")
    room = [[crops // shards, pooled // shards] for _ in range(shards)]
    # Ties are broken, too: what was packed is laid out in another order, and must still fit.
    sizes = [(max(c * pooled, p * crops), c, p) for c, p in units]
    largest_first = sorted(range(len(units)), key=sizes.__getitem__, reverse=True)
    placed = [0] * len(units)
    for unit in largest_first:
        c, p = units[unit]
        for shard, left in enumerate(room):
            if c <= left[0] and p <= left[1]:
                placed[unit] = shard
                left[0] -= c
                left[1] -= p
                break
        else:
            return None
    return placed
