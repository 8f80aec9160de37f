"""Crops as pictures that a page can carry: WebP in data URIs, as large as all of them together may be.

10 crops of 378 pixels      0.1 MB     shown as they are
512 crops of 378 pixels     6.5 MB     too much: 252 pixels a side, 4.1 MB, and the page says so
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from molmo2_jax.data.views import VIEW
from molmo2_jax.tools.row_view import crop_picture

SIDES = (VIEW, 252, 189, 126)  # pixels: all, two thirds, a half, a third
BUDGET = 4_500_000  # characters of all pictures of a page
SAMPLES = 16  # crops that tell how large all will be


def thumbnails(crops: Sequence[np.ndarray], budget: int = BUDGET) -> tuple[list[str], int]:
    """Data URIs of crops (uint8[729, 588] each) and their side in pixels: the largest that keeps to `budget`.

    Sizes are judged by a few of the crops; crops that are too many even at the smallest side get that one.
    """
    some = list(crops)[:: -(-len(crops) // SAMPLES) or 1]
    for side in SIDES:
        size = sum(len(data_uri(crop, side)) for crop in some)
        if size * len(crops) <= budget * len(some) or side == SIDES[-1]:
            return [data_uri(crop, side) for crop in crops], side


def data_uri(crop_PX: np.ndarray, side: int) -> str:
    """One crop as a WebP of `side` x `side` pixels."""
    picture = Image.fromarray(crop_picture(crop_PX))
    if side != VIEW:
        picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=78, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
