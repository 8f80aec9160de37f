"""Converting checkpoints, tensor by tensor, between Hugging Face directories and Orbax.

    hf     config.json  *.safetensors  tokenizer and processor files
    orbax  params/  architecture/  processor/         what `init_from` and `molmo2 generate` read

A conversion is atomic: it is written to a temporary folder, which is renamed to the target at the end.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import tqdm

from data_pipelines.config import read_config
from data_pipelines.sequence.view_config import ViewConfig
from data_pipelines.text.tokenizer import Tokenizer
from molmo2_jax import sharding
from molmo2_jax.models.structure import Structure, structure
from molmo2_jax.weights import checkpoint_files
from molmo2_jax.weights.hf.config import MAX_POSITIONS, HfError, write_config
from molmo2_jax.weights.hf.export_code import write_code
from molmo2_jax.weights.hf.fetch import clear_copies, local_folder
from molmo2_jax.weights.hf.processor import TOKENIZER, ProcessorSettings, copy_processor, write_processor
from molmo2_jax.weights.hf.source import CONFIG, HfSource, tensors_of
from molmo2_jax.weights.hf.tensor_files import atomic_directory, write_tensors
from molmo2_jax.weights.orbax_files import ParamFiles, write_params


def hf_to_orbax(source: str, target: pathlib.Path) -> str:
    """Converts a Molmo2 from a folder, URL or hub name; parameters keep their dtype. Returns a one-line summary.

    Raises:
      HfError: the source cannot be read or is not a whole Molmo2; the message names file and tensor.
    """
    folder = local_folder(source)
    with atomic_directory(target) as unfinished, jax.set_mesh(sharding.single_device_mesh()):
        parameters = HfSource(folder, source, tied=None)
        s = structure(parameters.model.molmo2(pathlib.PurePath(source).name))
        with _progress_bar(parameters.arrays, "parameters") as bar:
            write_params(parameters, s, unfinished / "params", bar.update)
        checkpoint_files.save_architecture(unfinished, s.config)
        processor = unfinished / checkpoint_files.PROCESSOR_FOLDER
        processor.mkdir()
        _copy_processor_if_any(folder, processor)
        shutil.copyfile(folder / CONFIG, processor / CONFIG)
    clear_copies()
    return _summary(target, parameters.arrays, s)


def orbax_to_hf(
    source: str, target: pathlib.Path, *, layout: str, dtype: np.dtype | None, max_positions: int | None
) -> str:
    """Converts a checkpoint (workdir, step or converted) to a directory that transformers loads. Returns a summary.

    Args:
      layout: a key of hf.source.LAYOUTS.
      dtype: what values are rounded to; None keeps them.
      max_positions: longest sequence that config.json allows, tokens; None takes the source's or the training row's.

    Raises:
      FileNotFoundError, CheckpointError: the checkpoint is missing or damaged.
      HfError: the format cannot express a setting, or a parameter has a value that is not finite; names it.
    """
    step = checkpoint_files.newest_step(source)
    with atomic_directory(target) as unfinished, jax.set_mesh(sharding.single_device_mesh()):
        s = structure(checkpoint_files.load_architecture(step))
        arrays, read_tensor = tensors_of(ParamFiles(step / "params"), s, layout, dtype)
        widest = np.result_type(*{a.dtype for a in arrays.values()})
        config = write_config(s.config, max_positions or _longest_sequence(step), widest.name)
        (unfinished / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        _write_processor(step, s, unfinished)
        if layout == "released":  # the tensor names that vLLM reads
            write_code(unfinished)
        with _progress_bar(arrays, "tensors") as bar:
            write_tensors(unfinished, arrays, read_tensor, bar.update)
    return _summary(target, arrays, s)


def _write_processor(step: pathlib.Path, s: Structure, target: pathlib.Path) -> None:
    """Writes the processor's files: those the model was converted with, or new ones from its training config."""
    tree = checkpoint_files.load_config(step)
    if tree is None:
        _copy_processor_if_any(step / checkpoint_files.PROCESSOR_FOLDER, target)
    else:
        view = read_config(ViewConfig, checkpoint_files.config_value(step, tree, "data.view"), f"{step}: data.view")
        if view.image_groups != "example":
            raise HfError(
                f"{step}: data.view.image_groups = {view.image_groups!r} cannot be expressed: in this format all "
                "images of an example see each other"
            )
        tokenizer = checkpoint_files.config_value(step, tree, "data.tokenizer")
        settings = ProcessorSettings(view.max_crops, view.max_frames, view.fps, view.frame_tokens)
        write_processor(target, Tokenizer.load(tokenizer, s.config.llm.vocab), settings)


def _longest_sequence(step: pathlib.Path) -> int:
    """Tokens: what a converted model's config.json says, else the longer of MAX_POSITIONS and the training row."""
    path = step / checkpoint_files.PROCESSOR_FOLDER / CONFIG
    tree = checkpoint_files.load_config(step)
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))["text_config"].get("max_position_embeddings", MAX_POSITIONS)
    return max(MAX_POSITIONS, 0 if tree is None else checkpoint_files.config_value(step, tree, "data.row.seq_len"))


def _copy_processor_if_any(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the processor of a directory, if it has one: weights can be converted without a processor."""
    if (source / TOKENIZER).is_file():
        copy_processor(source, target)


def _total_bytes(arrays) -> int:
    return sum(a.size * a.dtype.itemsize for a in arrays.values())


def _progress_bar(arrays, what: str) -> tqdm.tqdm:
    return tqdm.tqdm(total=_total_bytes(arrays), unit="B", unit_scale=True, desc=f"{len(arrays)} {what}")


def _summary(target: pathlib.Path, arrays, s: Structure) -> str:
    size = f"{len(arrays)} tensors, {_total_bytes(arrays) / 1e9:.2f} GB, {s.count():,} parameters"
    return f"{target}: {size} of {s.config.name}"
