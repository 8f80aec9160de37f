import base64
import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.media.crops import frame_crop
from molmo2_jax.viewer import thumbnails
from tests.molmo2_jax.viewer.rows import scene


@pytest.fixture(scope="module")
def crops():
    return [frame_crop(scene(time)) for time in np.linspace(0, 5, 20)]


def size_of(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))).size


def test_crops_are_as_large_as_the_budget_allows(crops):
    at = {side: sum(len(thumbnails.data_uri(crop, side)) for crop in crops) for side in thumbnails.SIDES}
    assert list(at.values()) == sorted(at.values(), reverse=True)
    for side, budget in (
        (378, 2 * at[378]),
        (252, 1.1 * at[252]),
        (189, 1.1 * at[189]),
        (126, 1.1 * at[126]),
        (126, 10),
    ):
        uris, got = thumbnails.thumbnails(crops, int(budget))
        assert got == side and len(uris) == 20 and {size_of(uri) for uri in uris} == {(side, side)}


def test_no_crops_give_no_images():
    assert thumbnails.thumbnails([]) == ([], 378)
