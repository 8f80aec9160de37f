"""Our side of the parity suite: one program per model computes every sub-module's output, the loss and gradients."""

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


def put_on_mesh(s: Structure, weights: Mapping[str, np.ndarray]) -> parameters.Params:
    shardings = {name: a.sharding for name, a in s.abstract(mesh()).items()}
    return {name: jax.device_put(weights[name], shardings[name]) for name in s.shapes}


@contextlib.contextmanager
def record_outputs() -> Iterator[dict]:
    """Within this context, sub-modules store their outputs in the dict, as forward hooks do.

    Decoder blocks run in a scan, which returns only their states: here a block's state is its output.
    """
    outputs = {}

    def record(cls, name):
        run = cls.__call__

        def call(self, *args, **kwargs):
            outputs[name] = run(self, *args, **kwargs)
            return outputs[name]

        return mock.patch.object(cls, "__call__", call)

    run_block = llm.Block.__call__

    def block(self, *args):
        x_BSD, _ = run_block(self, *args)
        return x_BSD, x_BSD

    with (
        record(llm.Llm, "llm"),
        mock.patch.object(llm.Block, "__call__", block),
    ):
        yield outputs


def everything(s: Structure, params: parameters.Params, row) -> tuple[dict, jax.Array, parameters.Params]:
    """({sub-module: output}, loss, gradients) of a batch of rows."""

    def loss(params):
        model = s.model(params)
        with record_outputs() as outputs:
            x = model.embed(row, RUN)
            sums = model.losses_from_embeddings(x, row, RUN)
        # `embed` computes these in a branch of its own, from which nothing can be recorded.
        outputs["features"] = model.vit(
            row["crops"], jax.numpy.dtype(RUN.dtype), remat=RUN.vit_remat, attention=RUN.attention
        )
        outputs["visual"] = model.connector(outputs["features"], row["pooling"])
        return (sums.cross_entropy + Z_LOSS * sums.z) / sums.weight, outputs | {"embedded": x}

    (value, outputs), grads = jax.value_and_grad(loss, has_aux=True)(params)
    outputs["norm"], blocks = outputs.pop("llm")
    outputs |= {f"block {layer}": x for layer, x in enumerate(blocks)}
    return outputs | {"logits": logits(s.model(params), outputs["norm"])}, value, grads


@functools.cache
def results(kind: str) -> tuple[dict[str, np.ndarray], float, dict[str, np.ndarray]]:
    """`everything` of the drawn weights of a kind, for one row of each of cases.MEDIA."""
    s = structure(cases.KINDS[kind])
    rows = cases.batch([cases.case(medium, True) for medium in cases.MEDIA])
    return run(everything, s, put_on_mesh(s, cases.weights(s.shapes)), rows)


def scores(s: Structure, params: parameters.Params, row) -> jax.Array:
    """Logits [B, S, V] of a batch of rows."""
    model = s.model(params)
    return logits(model, model.hidden(model.embed(row, RUN), row, RUN))


@functools.cache
def _program(function: Callable, c: Molmo2Config):
    return jax.jit(functools.partial(function, structure(c)))


def run(function: Callable, s: Structure, params: parameters.Params, rows: Mapping[str, np.ndarray]):
    """function(structure, params, rows), compiled once per architecture, as numpy."""
    with jax.set_mesh(mesh()):
        return jax.tree.map(np.asarray, _program(function, s.config)(params, sharding.put_rows(rows, mesh())))
