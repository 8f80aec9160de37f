"""A run that is ready to compile, from its config: mesh, architecture, parameter groups, optimizer and step.

Training, `molmo2 aot` and the gradient checks of `molmo2 inspect` all call `set_up`, so they run the same program.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import optax

from data_pipelines.config import ConfigError, check_config
from data_pipelines.loading.data import Data
from data_pipelines.media import crops
from data_pipelines.packing.schema import RowShape
from molmo2_jax import sharding
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.run_config import RunConfig
from molmo2_jax.models.structure import Structure, structure, tensor_dims
from molmo2_jax.ops.attention.attention import check_supported
from molmo2_jax.ops.attention.pallas_tpu import LANES
from molmo2_jax.ops.attention.token_order import row_index
from molmo2_jax.train.config import TrainConfig
from molmo2_jax.train.optimizer import make_optimizer, schedules
from molmo2_jax.train.parameter_groups import assign_groups
from molmo2_jax.train.step import State, abstract_state, jit_step, make_step
from molmo2_jax.weights.init_from import assign_sources, load_preset, load_vocab_size


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run that is ready to compile.

    `run`: how the model is computed. `row`: the shape of a row, of which a step takes `batch` in `microbatches`.
    `compiler`: XLA's options for the step on TPUs. `assigned`: {parameter: its group or FROZEN}. `state`: shapes and
    shardings of the training state. `step`: the jitted step, `state, metrics = step(state, rows)`.
    """

    run: RunConfig
    row: RowShape
    batch: int
    microbatches: int
    compiler: Mapping[str, str]
    mesh: jax.sharding.Mesh
    structure: Structure
    assigned: Mapping[str, str]
    optimizer: optax.GradientTransformation
    state: State
    step: jax.stages.Wrapped

    @property
    def architecture(self) -> Molmo2Config:
        return self.structure.config


def set_up(
    c: TrainConfig, devices: Sequence[jax.Device] | None = None, architecture: Molmo2Config | None = None
) -> Setup:
    """The run of a config on its devices; nothing is compiled or allocated.

    Args:
      devices: all devices of all processes by default; ahead-of-time targets for programs that are only compiled.
      architecture: the model, if it is not that of `c.model.preset`.

    Raises:
      ConfigError: values out of range, a mesh that does not fit devices or config, patterns that do not cover the
        parameters, an unknown preset.
    """
    check_config(c, "config")
    try:
        mesh = sharding.make_mesh(c.mesh, devices)
        architecture = load_preset(c.model.preset) if architecture is None else architecture
        with jax.set_mesh(mesh):
            check_fits(c, architecture, mesh, mesh.devices.flat[0].platform)
            s = structure(architecture)
        assigned = assign_groups(s.shapes, c.optim.groups, c.optim.frozen)
        assign_sources(s, c.init_from)
    except ValueError as error:
        raise ConfigError(f"config: {error}") from error
    optimizer = make_optimizer(c.optim, assigned, c.steps)
    step = make_step(
        s,
        c.model,
        assigned,
        optimizer,
        schedules(c.optim, c.steps),
        seed=c.seed,
        microbatches=c.microbatches,
        z_loss=c.z_loss,
    )
    with jax.set_mesh(mesh):
        state = abstract_state(s, mesh, assigned, optimizer)
    return Setup(
        run=c.model,
        row=c.data.row,
        batch=c.batch,
        microbatches=c.microbatches,
        compiler=c.compiler,
        mesh=mesh,
        structure=s,
        assigned=assigned,
        optimizer=optimizer,
        state=state,
        step=jit_step(step, mesh, c.compiler),
    )


def open_data(c: TrainConfig, architecture: Molmo2Config | None = None) -> Data:
    """The data of a config, opened for its model and mesh; needs no device of that mesh.

    Raises:
      ConfigError: an unknown preset, or a mesh without `context`. See Data for problems with records.
    """
    try:
        sharding.check_axes(c.mesh)
        vocab_size = load_vocab_size(c.model.preset) if architecture is None else architecture.llm.vocab
    except ValueError as error:
        raise ConfigError(f"config: {error}") from error
    # Each device along `context` encodes one part of a row's crops.
    return Data(c.data, vocab_size=vocab_size, vision_shards=c.mesh[sharding.CONTEXT])


def mesh_test(c: TrainConfig, device: jax.Device) -> tuple[int, Callable[[Mapping[str, int]], bool]]:
    """The model's number of parameters, and a function that says whether a mesh of given sizes fits the config.

    Args:
      device: one of the devices of such a mesh, whose platform counts.
    """
    architecture = load_preset(c.model.preset)
    with jax.set_mesh(sharding.single_device_mesh(device)):
        count = structure(architecture).count()

    def fits(sizes: Mapping[str, int]) -> bool:
        mesh = jax.sharding.AbstractMesh(tuple(sizes[axis] for axis in sharding.MESH_AXES), sharding.MESH_AXES)
        try:
            check_fits(c, architecture, mesh, device.platform)
        except ValueError:
            return False
        return True

    return count, fits


def check_fits(
    c: TrainConfig, a: Molmo2Config, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh, platform: str
) -> None:
    """Raises ValueError that names the first size of config or model that does not fit the mesh or the devices."""
    if c.batch % c.microbatches:
        raise ValueError(f"batch = {c.batch} cannot be divided into microbatches = {c.microbatches}")
    sharding.check_divides(
        {
            "batch": (c.batch, sharding.ROWS),
            "batch / microbatches": (c.batch // c.microbatches, sharding.ROWS),
            "data.row.seq_len": (c.data.row.seq_len, sharding.CONTEXT),
            "data.row.crops": (c.data.row.crops, sharding.CONTEXT),
            "data.row.pooled": (c.data.row.pooled, sharding.CONTEXT),
            "llm width": (a.llm.width, sharding.FSDP),
            "vit width": (a.vit.width, sharding.FSDP),
            **tensor_dims(a),
        },
        mesh,
    )
    check_supported(c.model.attention, c.model.context, a.llm.kv_heads, mesh)
    if c.model.attention == "pallas":
        _check_pallas(a, platform)
    # Raises ValueError where `token_order` cannot divide a row.
    row_index(c.model.token_order, 0, c.data.row.seq_len, mesh.shape[sharding.CONTEXT])
    if (a.vit.patches, a.vit.patch_pixels) != (crops.PATCHES, crops.PATCH_PIXELS):
        raise ValueError(
            f"{a.name} has {a.vit.patches} patches of {a.vit.patch_pixels} values per crop, "
            f"the data {crops.PATCHES} of {crops.PATCH_PIXELS}"
        )


def _check_pallas(a: Molmo2Config, platform: str) -> None:
    if platform != "tpu":
        raise ValueError(f'model.attention = "pallas" is for TPUs, the devices are {platform}s: use "blockwise"')
    if a.llm.head_dim % LANES:
        raise ValueError(
            f'model.attention = "pallas" needs a head dim that is a multiple of {LANES}, {a.name} has '
            f'{a.llm.head_dim}: use "blockwise"'
        )
