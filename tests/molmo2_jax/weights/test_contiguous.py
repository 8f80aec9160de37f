import ml_dtypes
import numpy as np
import pytest

from molmo2_jax.weights import contiguous as module
from molmo2_jax.weights.contiguous import contiguous

VIEWS = {  # from an array [6, 10, 14]
    "reversed": lambda x: x.T,
    "inputs first": lambda x: x.transpose(2, 0, 1),
    "swapped": lambda x: x.swapaxes(1, 2),
    "cut": lambda x: x[1:5, ::2, 3:],
    "backwards": lambda x: x[::-1].T,
    "repeated": lambda x: np.broadcast_to(x[:, :1], (6, 5, 14)),
    "nothing": lambda x: x[:0].T,
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("slab", [1, 100, 1 << 19])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_a_view_becomes_an_equal_array_in_c_order(monkeypatch, view, slab, dtype):
    monkeypatch.setattr(module, "_SLAB", slab)
    x = VIEWS[view](np.arange(6 * 10 * 14).reshape(6, 10, 14).astype(dtype))
    got = contiguous(x)
    assert got.flags.c_contiguous and got.dtype == x.dtype and got.shape == x.shape
    np.testing.assert_array_equal(got, x)


def test_a_contiguous_array_is_not_copied():
    x = np.zeros((3, 4))
    assert contiguous(x) is x and contiguous(x[1:]).base is x
