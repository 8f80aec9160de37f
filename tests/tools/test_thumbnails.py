import base64
import io

import numpy as np
import pytest
from PIL import Image

from molmo2_jax.data.views import frame_view
from molmo2_jax.tools import thumbnails
from tests.tools.rows import scene


@pytest.fixture(scope="module")
def crops():
    return [frame_view(scene(time)) for time in np.linspace(0, 5, 20)]


def size_of(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))).size


def test_crops_are_as_large_as_all_of_them_may_be(crops):
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


def test_no_crops_are_no_pictures():
    assert thumbnails.thumbnails([]) == ([], 378)
