"""Small random architectures of every kind, and directories read as sources: what the tests of hf/ share."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
from hypothesis import strategies as st

from molmo2_jax import sharding
from molmo2_jax.models import structure as parameters
from molmo2_jax.models.config import TINY, Molmo2Config
from molmo2_jax.models.structure import Structure
from molmo2_jax.ops.rope import Yarn
from molmo2_jax.weights.hf.source import HfSource


@functools.cache
def mesh() -> jax.sharding.Mesh:
    return sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])


@functools.cache
def structure(c: Molmo2Config) -> Structure:
    with jax.set_mesh(mesh()):
        return parameters.structure(c)


def source(folder: pathlib.Path, tied: bool | None = None) -> HfSource:
    with jax.set_mesh(mesh()):
        return HfSource(folder, str(folder), tied)


def read_all(source: HfSource) -> dict[str, np.ndarray]:
    """Every parameter, those of blocks read layer by layer."""
    out = {}
    for name, array in source.arrays.items():
        if "/blocks/" in name:
            out[name] = np.stack([source.read(name, layer) for layer in range(array.shape[0])])
        else:
            out[name] = source.read(name, None)
    return out


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """The same names, shapes, dtypes and bits."""
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert (found[name].shape, found[name].dtype) == (x.shape, x.dtype), name
        np.testing.assert_array_equal(found[name], x, err_msg=name)


YARN = st.builds(
    Yarn,
    factor=st.floats(1.5, 64),
    attention_factor=st.floats(0.5, 4),
    beta_fast=st.floats(16, 64),
    beta_slow=st.floats(0.5, 4),
    original_positions=st.integers(1, 1 << 20),
)


@st.composite
def architectures(draw) -> Molmo2Config:
    """Any architecture that Molmo2's format can express, with sizes of at most 12."""
    few, layers = st.integers(1, 4), draw(st.integers(1, 3))
    kv_heads, vit_heads, vit_head_dim = draw(few), draw(few), draw(few)
    features = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True))
    yarn = draw(st.none() | YARN)
    stretched = draw(st.lists(st.integers(0, layers - 1), unique=True).map(tuple))
    vit = dataclasses.replace(
        TINY.vit,
        width=vit_heads * vit_head_dim,
        heads=vit_heads,
        mlp=draw(st.integers(1, 9)),
        layers=max(features) + 1,
        feature_layers=tuple(features),
        norm_eps=draw(st.floats(1e-8, 1e-2)),
    )
    heads = draw(st.sampled_from([h for h in range(1, vit.width + 1) if vit.width % h == 0]))
    llm = dataclasses.replace(
        TINY.llm,
        width=draw(st.integers(1, 12)),
        layers=layers,
        heads=kv_heads * draw(few),
        kv_heads=kv_heads,
        head_dim=draw(st.integers(1, 6)),
        mlp=draw(st.integers(1, 9)),
        vocab=draw(st.integers(2, 40)),
        rope_theta=draw(st.floats(1e3, 1e7)),
        yarn=yarn,
        yarn_layers=() if yarn is None else stretched,
        norm_after=draw(st.booleans()),
        qk_norm=draw(st.sampled_from(["head", "projection"])),
        norm_eps=draw(st.floats(1e-8, 1e-2)),
        tied=draw(st.booleans()),
    )
    connector = dataclasses.replace(
        TINY.connector, heads=heads, head_dim=vit.width // heads, mlp=draw(st.integers(1, 9))
    )
    return Molmo2Config("drawn", vit, connector, llm)
