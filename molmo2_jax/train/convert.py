"""Checkpoints from one format to the other, tensor by tensor: Hugging Face directories and Orbax.

    hf     config.json  *.safetensors  tokenizer and processor files
    orbax  params/  architecture/  processor/         what `init_from` and `molmo2 generate` read

A conversion is whole or not there: it is written beside its place and moved into it at the end.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import tqdm

from molmo2_jax import sharding
from molmo2_jax.hf.config import MAX_POSITIONS, HfError, write_config
from molmo2_jax.hf.fetch import forget_copies, local_folder
from molmo2_jax.hf.files import appearing, write_tensors
from molmo2_jax.hf.processor import TOKENIZER, ViewSettings, copy_processor, write_processor
from molmo2_jax.hf.serve import write_code
from molmo2_jax.hf.source import CONFIG, HfSource, tensors_of
from molmo2_jax.models.params import Structure, structure
from molmo2_jax.text.tokenizer import Tokenizer
from molmo2_jax.train import checkpoint
from molmo2_jax.train.config import read
from molmo2_jax.train.param_files import ParamFiles, write_params

PROCESSOR = "processor"  # folder of a converted checkpoint with the tokenizer and processor files of its source


def hf_to_orbax(source: str, target: pathlib.Path) -> str:
    """A Molmo2 from a folder, URL or hub name, in the dtype it has there. Returns a line that says what was written.

    Raises:
      HfError: the source cannot be read or is no whole Molmo2; names file and tensor.
    """
    folder = local_folder(source)
    with appearing(target) as unfinished, jax.set_mesh(_one_device()):
        parameters = HfSource(folder, source, tied=None)
        s = structure(parameters.model.molmo2(pathlib.PurePath(source).name))
        with _bar(parameters.arrays, "parameters") as bar:
            write_params(parameters, s, unfinished / "params", bar.update)
        checkpoint.save_architecture(unfinished, s.config)
        (unfinished / PROCESSOR).mkdir()
        _keep_processor(folder, unfinished / PROCESSOR)
        shutil.copyfile(folder / CONFIG, unfinished / PROCESSOR / CONFIG)
    forget_copies()
    return _summary(target, parameters.arrays, s)


def orbax_to_hf(
    source: str, target: pathlib.Path, *, layout: str, dtype: np.dtype | None, max_positions: int | None
) -> str:
    """A checkpoint (workdir, step or converted) as a directory that transformers loads. Returns a line that says what.

    Args:
      layout: a key of hf.source.LAYOUTS.
      dtype: what numbers are rounded to; None keeps them.
      max_positions: longest sequence that config.json promises, tokens; None: as the model came, or was trained.

    Raises:
      FileNotFoundError, CheckpointError: there is no such checkpoint, or a damaged one.
      HfError: naming what the format cannot express, or the parameter that is not finite.
    """
    step = checkpoint.newest_step(source)
    with appearing(target) as unfinished, jax.set_mesh(_one_device()):
        s = structure(checkpoint.load_architecture(step))
        arrays, read_tensor = tensors_of(ParamFiles(step / "params"), s, layout, dtype)
        widest = np.result_type(*{a.dtype for a in arrays.values()})
        config = write_config(s.config, max_positions or _longest(step), widest.name)
        (unfinished / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        _write_processor(step, s, unfinished)
        if layout == "released":  # the names of tensors that vLLM reads
            write_code(unfinished)
        with _bar(arrays, "tensors") as bar:
            write_tensors(unfinished, arrays, read_tensor, bar.update)
    return _summary(target, arrays, s)


def _write_processor(step: pathlib.Path, s: Structure, target: pathlib.Path) -> None:
    """The files a processor is made of: those the model came with, or what its training config says."""
    tree = checkpoint.load_config(step)
    if tree is None:
        _keep_processor(step / PROCESSOR, target)
    else:
        data = read(tree).data
        if data.image_groups != "example":
            raise HfError(
                f"{step}: data.image_groups = {data.image_groups!r} cannot be expressed: all images see all there"
            )
        views = ViewSettings(data.max_crops, data.max_frames, data.fps, data.frame_tokens)
        write_processor(target, Tokenizer.load(data.tokenizer, s.config.llm.vocab), views)


def _longest(step: pathlib.Path) -> int:
    """Longest sequence to promise: what the model came with says, or the row it was trained on if that is longer."""
    path, tree = step / PROCESSOR / CONFIG, checkpoint.load_config(step)
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))["text_config"].get("max_position_embeddings", MAX_POSITIONS)
    return max(MAX_POSITIONS, 0 if tree is None else read(tree).data.seq_len)


def _keep_processor(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the processor of a directory that has one; weights alone can be converted, too."""
    if (source / TOKENIZER).is_file():
        copy_processor(source, target)


def _one_device() -> jax.sharding.Mesh:
    return sharding.make_mesh(dict.fromkeys(sharding.MESH_AXES, 1), jax.devices()[:1])


def _nbytes(arrays) -> int:
    return sum(a.size * a.dtype.itemsize for a in arrays.values())


def _bar(arrays, what: str) -> tqdm.tqdm:
    return tqdm.tqdm(total=_nbytes(arrays), unit="B", unit_scale=True, desc=f"{len(arrays)} {what}")


def _summary(target: pathlib.Path, arrays, s: Structure) -> str:
    return (
        f"{target}: {len(arrays)} tensors, {_nbytes(arrays) / 1e9:.2f} GB, {s.count():,} parameters of {s.config.name}"
    )
