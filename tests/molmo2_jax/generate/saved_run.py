"""A workdir as training writes it, without the training: what the tests of generation and conversion share."""

import pathlib

import grain
import jax
import jax.numpy as jnp

from data_pipelines.loading.config import DataConfig
from molmo2_jax import sharding
from molmo2_jax.models import structure as parameters
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.train.checkpoint import CheckpointConfig, Checkpoints
from molmo2_jax.train.config import TrainConfig
from molmo2_jax.train.optimizer import OptimConfig
from molmo2_jax.train.step import State
from molmo2_jax.weights.checkpoint_files import to_json
from molmo2_jax.weights.init_from import InitConfig
from tests.molmo2_jax.models.small import RUN, random_weights

MESH = {"data": 1, "fsdp": 1, "context": 1, "tensor": 1}


def save_run(workdir: pathlib.Path, architecture: Molmo2Config, data: DataConfig, scale: float = 0.2) -> None:
    """Step 1 of a run; tests/molmo2_jax/models/small.py draws its parameters."""
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
        init_from={"all": InitConfig(".*", "random")},
        optim=OptimConfig(groups={}, frozen=".*", b1=0.9, b2=0.95, eps=1e-6, weight_decay=0.0, clip=1.0, end_lr=0.1),
        checkpoint=CheckpointConfig(every=1, keep=1),
    )
    with jax.set_mesh(sharding.make_mesh(MESH, jax.devices()[:1])):
        params = {
            n: jnp.asarray(a) for n, a in random_weights(parameters.structure(architecture).shapes, scale=scale).items()
        }
        state = State(jnp.int32(1), {}, params, {"count": jnp.int32(1)})
        checkpoints = Checkpoints(workdir, config.checkpoint, to_json(config), architecture)
        checkpoints.save(state, iter(grain.MapDataset.range(1).to_iter_dataset()))
        checkpoints.close()
