"""Our side of the parity suite: one program a model, which gives every sub-module's output, the loss and gradients."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from unittest import mock

import jax
import numpy as np

from molmo2_jax import sharding
from molmo2_jax.models import llm
from molmo2_jax.models import structure as parameters
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.molmo2 import logits
from molmo2_jax.models.structure import Structure
from tests.molmo2_jax.models.small import RUN
from tests.molmo2_jax.weights.hf.small_hf import mesh, structure
from tests.parity import cases

Z_LOSS = 1e-4


def place(s: Structure, numbers: Mapping[str, np.ndarray]) -> parameters.Params:
    targets = {name: a.sharding for name, a in s.abstract(mesh()).items()}
    return {name: jax.device_put(numbers[name], targets[name]) for name in s.shapes}


@contextlib.contextmanager
def watched() -> Iterator[dict]:
    """While this is open, sub-modules leave what they return in the dict, as forward hooks would.

    A decoder block is run by a scan, which hands on its state alone: here its output is its state.
    """
    seen = {}

    def keep(cls, name):
        run = cls.__call__

        def call(self, *args, **kwargs):
            seen[name] = run(self, *args, **kwargs)
            return seen[name]

        return mock.patch.object(cls, "__call__", call)

    run_block = llm.Block.__call__

    def block(self, *args):
        x_BSD, _ = run_block(self, *args)
        return x_BSD, x_BSD

    with (
        keep(llm.Llm, "llm"),
        mock.patch.object(llm.Block, "__call__", block),
    ):
        yield seen


def everything(s: Structure, params: parameters.Params, row) -> tuple[dict, jax.Array, parameters.Params]:
    """({sub-module: output}, loss, gradients) of a batch of rows."""

    def loss(params):
        model = s.model(params)
        with watched() as seen:
            x = model.embed(row, RUN)
            sums = model.losses_of(x, row, RUN)
        # What `embed` computes in a branch of its own, from which nothing can be watched.
        seen["features"] = model.vit(
            row["crops"], jax.numpy.dtype(RUN.dtype), remat=RUN.vit_remat, attention=RUN.attention
        )
        seen["visual"] = model.connector(seen["features"], row["pooling"])
        return (sums.cross_entropy + Z_LOSS * sums.z) / sums.weight, seen | {"embedded": x}

    (value, seen), grads = jax.value_and_grad(loss, has_aux=True)(params)
    seen["norm"], blocks = seen.pop("llm")
    seen |= {f"block {layer}": x for layer, x in enumerate(blocks)}
    return seen | {"logits": logits(s.model(params), seen["norm"])}, value, grads


@functools.cache
def results(kind: str) -> tuple[dict[str, np.ndarray], float, dict[str, np.ndarray]]:
    """`everything` of the drawn weights of a kind, for one row of each of cases.MEDIA."""
    s = structure(cases.KINDS[kind])
    rows = cases.batch([cases.case(medium, True) for medium in cases.MEDIA])
    return run(everything, s, place(s, cases.weights(s.shapes)), rows)


def scores(s: Structure, params: parameters.Params, row) -> jax.Array:
    """Logits [B, S, V] of a batch of rows."""
    model = s.model(params)
    return logits(model, model.hidden(model.embed(row, RUN), row, RUN))


@functools.cache
def _program(function: Callable, c: Molmo2Config):
    return jax.jit(functools.partial(function, structure(c)))


def run(function: Callable, s: Structure, params: parameters.Params, rows: Mapping[str, np.ndarray]):
    """function(structure, params, rows), compiled once an architecture, as numpy."""
    with jax.set_mesh(mesh()):
        return jax.tree.map(np.asarray, _program(function, s.config)(params, sharding.put_rows(rows, mesh())))
