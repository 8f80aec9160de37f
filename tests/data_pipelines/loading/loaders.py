"""Settings and comparisons that tests of loaders share."""

from data_pipelines.packing.schema import FIELDS

SMALL = {"seq_len": 700, "crops": 5, "pooled": 405, "max_frames": 3, "pool": 4}


def same(a, b):
    """Byte-identical elements."""
    return a.keys() == b.keys() and all(
        a[k].tobytes() == b[k].tobytes() if k in FIELDS else a[k] == b[k] for k in a.keys() - {"counts"}
    )


def take(loader, n):
    return [next(loader) for _ in range(n)]
