"""Every costly operation of a compiled step has the name of the part of the model that it belongs to."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.models.structure import structure
from tests.molmo2_jax.models.small import KINDS, RUN, random_weights, rows

SCOPES = ("vit", "connector", "embedding", "llm", "attention", "crop_attention", "loss")
COSTLY = ("dot", "convolution", "custom-call", "while", "all-gather", "all-to-all", "reduce-scatter")
OPERATION = re.compile(rf" ({'|'.join(COSTLY)})(?:-start)?\(")


@functools.cache
def compiled_step(sizes, **changes):
    """The text of loss and gradients over two microbatches, compiled."""
    mesh = sharding.make_mesh(dict(zip(sharding.MESH_AXES, sizes, strict=True)), jax.devices()[: np.prod(sizes)])
    run = dataclasses.replace(RUN, **changes)
    with jax.set_mesh(mesh):
        s = structure(KINDS["qwen3_untied"])
        params = jax.device_put(random_weights(s.shapes), {name: a.sharding for name, a in s.abstract(mesh).items()})
        row = sharding.put_rows(rows(s.config, batch=2 * sizes[1]), mesh)

        def loss(params, row):
            sums = s.model(params).losses(row, run, jax.random.key(0))
            return (sums.cross_entropy + 1e-4 * sums.z) / sums.weight

        @jax.jit
        def step(params, row):
            def add(total, _):
                return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(params, row)), None

            zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
            return jax.lax.scan(add, zeros, length=2)[0]

        # This pass of XLA:CPU rewrites products of a vector without their names.
        return step.lower(params, row).compile({"xla_disable_hlo_passes": "gemv-rewriter"}).as_text()


def scoped_operations(text):
    """[(operation, innermost scope or "", op_name)] of the costly operations of a compiled program."""
    found = []
    for line in text.splitlines():
        if operation := OPERATION.search(line):
            op_name = re.search(r'op_name="([^"]*)"', line)
            op_name = "" if op_name is None else op_name[1]
            scopes = [word for word in re.findall(r"\w+", op_name) if word in SCOPES]
            found.append((operation[1], scopes[-1] if scopes else "", op_name))
    return found


@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        ((1, 1, 1, 1), {"attention": "dense", "residual_dropout": 0.1}),
        ((1, 2, 2, 1), {"context": "ring", "remat": "full", "vit_remat": "attention"}),
    ],
)
def test_every_costly_operation_of_a_step_has_a_scope(sizes, changes):
    operations = scoped_operations(compiled_step(sizes, **changes))
    without = [(kind, op_name) for kind, scope, op_name in operations if not scope]
    assert without == [("while", "jit(step)/while")]  # the microbatches
    products = [(scope, "transpose" in op_name) for kind, scope, op_name in operations if kind == "dot"]
    assert {scope for scope, backward in products if not backward} == set(SCOPES) - {"embedding"}
    assert {scope for scope, backward in products if backward} == set(SCOPES) - {"embedding"}


def test_attention_is_a_scope_of_its_own_within_the_llm_and_the_vit():
    operations = scoped_operations(compiled_step((1, 1, 1, 1), attention="dense", residual_dropout=0.1))
    for outer, inner in (("llm", "attention"), ("vit", "crop_attention")):
        names = [op_name for kind, scope, op_name in operations if kind == "dot" and scope == inner]
        assert names and all(re.search(rf"\b{outer}\b", name) for name in names)
        projections = [op_name for kind, scope, op_name in operations if kind == "dot" and scope == outer]
        assert projections and not any(inner in name for name in projections)
