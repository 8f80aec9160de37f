import dataclasses
import math
import re
import types

import jax
import numpy as np
import pytest

from molmo2_jax import sharding
from molmo2_jax.models.config import TINY
from molmo2_jax.train.checks import CHOICES, RANGES, check_fits, check_values
from molmo2_jax.train.config import read
from tests.train.small_run import config, dataset


def leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def with_value(path, value):
    tree = dataclasses.asdict(config(data__mixture=EVERY))
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return read(tree)


def name(path):
    key = re.sub(r"^(optim\.groups|data\.mixture)\.[^.]+", r"\1.*", ".".join(path))
    return re.sub(r"^(data\.mixture\.\*\.datasets)\.[^.]+", r"\1.*", key)


EVERY = {"street": {"rate": 1.0, "datasets": {"questions": dataset("a.jsonl")}}}  # numbers also where None may stand
TREE = dict(leaves(dataclasses.asdict(config(data__mixture=EVERY))))
NUMBERS = {path: value for path, value in TREE.items() if isinstance(value, int | float)}
# The mesh and the vocabulary are checked against devices and model, by check_fits.
ELSEWHERE = {"data.vocab_size", *(f"mesh.{axis}" for axis in ("data", "fsdp", "context", "tensor"))}


def test_every_number_of_a_config_has_a_range():
    assert {name(path) for path in NUMBERS} == set(RANGES) | ELSEWHERE
    assert set(CHOICES) <= {name(path) for path in TREE}


def test_the_small_run_is_in_range():
    check_values(config())


@pytest.mark.parametrize("path", [p for p in NUMBERS if name(p) in RANGES], ids=".".join)
def test_a_value_out_of_its_range_is_named(path):
    low, high, closed = RANGES[name(path)]
    kind = type(NUMBERS[path])
    outside = [kind(low - 1)] + ([] if closed else [kind(low)]) + ([] if math.isinf(high) else [kind(high + 1)])
    for value in outside + ([math.nan] if kind is float else []):
        with pytest.raises(ValueError, match=f"^{'.'.join(path)} = {value} must be "):
            check_values(with_value(path, value))


@pytest.mark.parametrize("key", CHOICES)
def test_an_unknown_choice_is_named_with_the_known_ones(key):
    with pytest.raises(ValueError, match=f"^{key} = 'other' is unknown; there are "):
        check_values(with_value(tuple(key.split(".")), "other"))


def test_all_mistakes_come_at_once():
    with pytest.raises(ValueError, match=r"batch = 0 .*; log_every = 0 "):
        check_values(config(batch=0, log_every=0))


def test_tpu_kernels_are_refused_where_they_cannot_run():
    c = config(model__attention="pallas")
    mesh = sharding.make_mesh(c.mesh, jax.devices()[:1])
    with pytest.raises(ValueError, match="is for TPUs, the devices are cpus"):
        check_fits(c, TINY, mesh)
    tpu = types.SimpleNamespace(platform="tpu")
    pod = types.SimpleNamespace(shape=dict(mesh.shape), devices=np.array([tpu], object))
    with pytest.raises(ValueError, match="wants head dims in steps of 128, tiny has 48"):
        check_fits(c, TINY, pod)
