"""Crops as WebP images in data URIs, scaled down where all of them together would make the page too large.

10 crops of 378 pixels      0.1 MB     not scaled
512 crops of 378 pixels     6.5 MB     too large: 252 pixels along a side, 4.1 MB, and the page reports it
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_pipelines.media.crops import CROP_SIZE
from molmo2_jax.viewer.row_reader import unpatchify

SIDES = (CROP_SIZE, 252, 189, 126)  # pixels: all, two thirds, a half, a third
BUDGET = 4_500_000  # characters of all data URIs of a page
SAMPLES = 16  # crops from which the size of all is estimated


def thumbnails(crops: Sequence[np.ndarray], budget: int = BUDGET) -> tuple[list[str], int]:
    """Data URIs of crops (uint8[729, 588] each) and their side in pixels: the largest of SIDES within `budget`.

    The total is estimated from a few crops. If no side is small enough, the smallest is used.
    """
    some = list(crops)[:: -(-len(crops) // SAMPLES) or 1]
    for side in SIDES:
        size = sum(len(data_uri(crop, side)) for crop in some)
        if size * len(crops) <= budget * len(some) or side == SIDES[-1]:
            return [data_uri(crop, side) for crop in crops], side


def data_uri(crop_PX: np.ndarray, side: int) -> str:
    """One crop, uint8[729, 588], as a WebP of `side` x `side` pixels."""
    image = Image.fromarray(unpatchify(crop_PX))
    if side != CROP_SIZE:
        image = image.resize((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=78, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
