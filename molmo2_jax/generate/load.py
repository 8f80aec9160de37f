"""Loading a model to generate with: weights on a mesh, how they are computed, and what a prompt looks like."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax

from data_pipelines.config import ConfigError, read_config
from data_pipelines.prompts import PromptConfig
from data_pipelines.sequence.view_config import ViewConfig
from data_pipelines.text.tokenizer import Tokenizer
from molmo2_jax import sharding
from molmo2_jax.models.config import Molmo2Config
from molmo2_jax.models.molmo2 import Molmo2
from molmo2_jax.models.run_config import RunConfig
from molmo2_jax.models.structure import structure, tensor_dims
from molmo2_jax.weights import checkpoint_files
from molmo2_jax.weights.hf.config import MAX_POSITIONS
from molmo2_jax.weights.hf.fetch import local_folder
from molmo2_jax.weights.hf.processor import read_processor
from molmo2_jax.weights.hf.source import HfSource
from molmo2_jax.weights.source import load_sharded


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model on a mesh. `run`: how it is computed. `tok`, `view`, `prompts`: how media and text become its input."""

    model: Molmo2
    mesh: jax.sharding.Mesh
    run: RunConfig
    tok: Tokenizer
    view: ViewConfig
    prompts: PromptConfig


def load_model(source: str | pathlib.Path, devices: Sequence[jax.Device] | None = None) -> LoadedModel:
    """Weights, config and tokenizer of a model.

    Args:
      source: a workdir, one step of it, or what `molmo2 convert` wrote, with or without "orbax:"; or "hf:" and a
        folder, a URL or a hub name of a Molmo2 (weights/hf/fetch.py).
      devices: the model is sharded over these along `tensor`; all devices by default.

    Raises:
      FileNotFoundError: there is no finished checkpoint, or its tokenizer is missing.
      CheckpointError: the checkpoint is damaged.
      HfError: the Hugging Face directory cannot be read, or it has no processor that data_pipelines supports.
      ConfigError: the saved config cannot be used, or the model cannot be sharded over so many devices.
    """
    devices = jax.devices() if devices is None else devices
    if str(source).startswith("hf:"):
        return _load_hf(str(source), devices)
    path = str(source).removeprefix("orbax:")
    if "://" in path:
        raise ConfigError(f"{source}: checkpoints are read from local or mounted folders; mount or copy the bucket")
    return _load_checkpoint(checkpoint_files.newest_step(path), devices)


def _load_checkpoint(step: pathlib.Path, devices: Sequence[jax.Device]) -> LoadedModel:
    architecture = checkpoint_files.load_architecture(step)
    mesh = _tensor_mesh(architecture, devices)
    tree = checkpoint_files.load_config(step)
    if tree is None:
        processor = step / checkpoint_files.PROCESSOR_FOLDER
        run, view, prompts = _settings_of_processor(architecture, processor)
        tokenizer = str(processor)
    else:
        value = functools.partial(checkpoint_files.config_value, step, tree)
        run = read_config(RunConfig, value("model"), f"{step}: model")
        view = read_config(ViewConfig, value("data.view"), f"{step}: data.view")
        prompts = read_config(PromptConfig, value("data.prompts"), f"{step}: data.prompts")
        tokenizer = value("data.tokenizer")
    tok = Tokenizer.load(tokenizer, architecture.llm.vocab)
    with jax.set_mesh(mesh):
        s = structure(architecture)
        model = s.model(checkpoint_files.load_params(step, s, mesh))
    return LoadedModel(model, mesh, run, tok, view, prompts)


def _load_hf(source: str, devices: Sequence[jax.Device]) -> LoadedModel:
    folder = local_folder(source.removeprefix("hf:"))
    with jax.set_mesh(sharding.single_device_mesh(devices[0])):
        weights = HfSource(folder, source, tied=None)
        architecture = weights.model.molmo2(source)
    mesh = _tensor_mesh(architecture, devices)
    run, view, prompts = _settings_of_processor(architecture, folder)
    tok = Tokenizer.load(str(folder), architecture.llm.vocab)
    with jax.set_mesh(mesh):
        s = structure(architecture)
        model = s.model(load_sharded(dict.fromkeys(s.shapes, weights), s, mesh))
    return LoadedModel(model, mesh, run, tok, view, prompts)


def _settings_of_processor(a: Molmo2Config, folder: pathlib.Path) -> tuple[RunConfig, ViewConfig, PromptConfig]:
    """Settings of a model without a training config; `folder` holds its processor."""
    run = RunConfig(
        a.name,
        "bfloat16" if jax.default_backend() != "cpu" else "float32",  # CPUs have no fast bfloat16
        attention="blockwise",
        context="all_gather",
        token_order="contiguous",
        remat="none",
        vit_remat="none",
        loss_chunk=1,
        residual_dropout=0.0,
        response_dropout=0.0,
    )
    processor = read_processor(folder)
    view = ViewConfig(
        frame_sampling="uniform_last_frame",
        timestamps="per-frame-compact",
        subtitles="all",
        max_subtitle_tokens=None,
        high_res_crops=processor.max_crops,
        max_images=MAX_POSITIONS,
        image_groups="example",
        **dataclasses.asdict(processor),
    )
    return run, view, PromptConfig(templates=False, style_prefix="none", points_format="html-v2")


def _tensor_mesh(a: Molmo2Config, devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """A mesh with all devices along `tensor`. Raises ConfigError naming the first model size they do not divide."""
    mesh = sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1) | {sharding.TENSOR: len(devices)}, devices)
    try:
        sharding.check_divides(tensor_dims(a), mesh)
    except ValueError as error:
        raise ConfigError(
            f"{a.name} on {len(devices)} devices: {error}; pass fewer devices, or hide some with "
            "CUDA_VISIBLE_DEVICES or TPU_VISIBLE_CHIPS"
        ) from error
    return mesh
