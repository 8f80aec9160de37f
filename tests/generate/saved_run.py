"""A workdir as training leaves it, without the training: what the tests of answering and exporting share."""

import pathlib

import grain
import jax
import jax.numpy as jnp

from molmo2_jax import sharding
from molmo2_jax.data.config import DataConfig
from molmo2_jax.models import params as parameters
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.train.checkpoint import Checkpoints
from molmo2_jax.train.config import CheckpointConfig, InitConfig, TrainConfig
from molmo2_jax.train.optim import OptimConfig
from molmo2_jax.train.step import State
from tests.models.small import RUN, numbers

MESH = {"data": 1, "fsdp": 1, "context": 1, "tensor": 1}


def save_run(workdir: pathlib.Path, architecture: Molmo2Config, data: DataConfig, scale: float = 0.2) -> None:
    """Step 1 of a run with the parameters of tests/models/small.py: numbers."""
    config = TrainConfig(
        seed=0,
        steps=1,
        batch=1,
        microbatches=1,
        z_loss=0.0,
        log_every=1,
        mesh=MESH,
        compiler={},
        model=RUN,
        data=data,
        init_from={"all": InitConfig(".*", "fresh")},
        optim=OptimConfig(groups={}, frozen=".*", b1=0.9, b2=0.95, eps=1e-6, weight_decay=0.0, clip=1.0, end_lr=0.1),
        checkpoint=CheckpointConfig(every=1, keep=1),
    )
    with jax.set_mesh(sharding.make_mesh(MESH, jax.devices()[:1])):
        params = {n: jnp.asarray(a) for n, a in numbers(parameters.structure(architecture).shapes, scale=scale).items()}
        state = State(jnp.int32(1), {}, params, {"count": jnp.int32(1)})
        checkpoints = Checkpoints(workdir, config.checkpoint)
        checkpoints.save(state, iter(grain.MapDataset.range(1).to_iter_dataset()), config, architecture)
        checkpoints.close()
