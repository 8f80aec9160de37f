"""Hugging Face directory -> parameters (`HfSource`), and parameters -> tensors of such a directory (`tensors_of`)."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from molmo2_jax.models.config import TINY, Molmo2Config
from molmo2_jax.models.structure import Structure, structure
from molmo2_jax.weights.hf import tensor_rules
from molmo2_jax.weights.hf.config import HfError, HfModel, read_config
from molmo2_jax.weights.hf.tensor_files import TensorFiles, all_finite
from molmo2_jax.weights.source import ParameterSource

LAYOUTS = {
    "released": tensor_rules.released,
    "transformers": tensor_rules.native,
}  # naming of a Molmo2's tensors -> its rules

CONFIG = "config.json"
_CHUNK = 1 << 14  # rows of the embedding compared at a time


class HfSource:
    """The parameters of a directory: a whole Molmo2 in either layout, or a base model, which is a part of one.

    `model` is what its config.json describes, `arrays` the parameters it holds. The constructor reads no values; it
    checks that every tensor belongs to one parameter and that every parameter has its tensors, in the right shape.
    """

    def __init__(self, folder: pathlib.Path, where: str, tied: bool | None):
        """Needs a mesh to be set (sharding.make_mesh).

        Args:
          where: the name of the directory in errors and reports.
          tied: whether the output embedding is the input embedding. For Molmo2 only, whose files always hold both;
            None compares them.

        Raises:
          HfError: missing or damaged files, another architecture, or a tensor that is missing, unknown or of another
            shape.
        """
        self.where = where
        self._files = TensorFiles(folder)
        self.model = _with_head_tying(read_model(folder), self._files, tied)
        whole = structure(_whole_config(self.model))
        present = {name: shape for name, shape in whole.shapes.items() if _has_parameter(self.model, name)}
        rules = _rules_for(self.model, self._files)
        self._tensors = tensor_rules.expand(rules, present, lambda name: whole.layers(name) is not None)
        _check_tensors(self._tensors, self._files, self.model)
        self.arrays: dict[str, jax.ShapeDtypeStruct] = {}
        self._locations: dict[tuple[str, int | None], tuple[tensor_rules.Tensor, tensor_rules.Piece, int]] = {}
        self._copies = {t.pieces[0].name: t for t in self._tensors if t.copy and t.keys[0] in self._files.arrays}
        for tensor in self._tensors:
            if tensor.copy:
                continue
            start, dtype = 0, self._files.arrays[tensor.keys[0]].dtype
            for piece in tensor.pieces:
                self._locations[piece.name, piece.layer] = tensor, piece, start
                self.arrays[piece.name] = jax.ShapeDtypeStruct(present[piece.name], dtype)
                start += piece.rows_shape[0]

    def read(self, name: str, layer: int | None) -> np.ndarray:
        """One layer of a stacked parameter, or a parameter that is not stacked (`layer` None), in its stored dtype.

        Raises:
          HfError: a value is not finite, or a tied head differs from the input embedding.
        """
        tensor, piece, start = self._locations[name, layer]
        rows = self._read_rows(tensor.keys, start, start + piece.rows_shape[0])
        if name in self._copies:
            self._check_copy(self._copies[name], rows)
        return piece.to_layer(rows)

    def _read_rows(self, keys: tuple[str, ...], start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of the concatenated tensors of `keys`."""
        parts, first = [], 0
        for key in keys:
            last = first + self._files.arrays[key].shape[0]
            if start < last and first < stop:
                parts.append(self._files.read(key, slice(max(start, first) - first, min(stop, last) - first)))
            first = last
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _check_copy(self, tensor: tensor_rules.Tensor, rows: np.ndarray) -> None:
        (key,) = tensor.keys
        for start in range(0, len(rows), _CHUNK):
            stop = min(start + _CHUNK, len(rows))
            if not np.array_equal(self._files.read(key, slice(start, stop)), rows[start:stop]):
                raise HfError(
                    f"{self._files.where(key)}: differs from the input embedding at rows {start} to {stop - 1}, but "
                    "the wanted model has tied embeddings"
                )


def read_model(folder: pathlib.Path) -> HfModel:
    """What the config.json of a directory describes. Raises HfError."""
    path = folder / CONFIG
    if not path.is_file():
        raise HfError(f"{path}: no such file; a directory as transformers writes it has one")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HfError(f"{path}: not JSON ({error})") from error
    return read_config(config, str(path))


def _with_head_tying(model: HfModel, files: TensorFiles, tied: bool | None) -> HfModel:
    """Sets `llm.tied` of a Molmo2: its config.json never has it, and its files hold a tied head as a copy."""
    if model.connector is None or model.llm.tied:
        return model
    if tied is None:
        tied = _head_is_a_copy(files)
    return dataclasses.replace(model, llm=dataclasses.replace(model.llm, tied=tied))


def _head_is_a_copy(files: TensorFiles) -> bool:
    tables = [key for key in files.arrays if key.endswith(("wte.embedding", "embed_tokens.weight"))]
    if len(tables) != 1 or "lm_head.weight" not in files.arrays:
        return False  # _check_tensors reports what is missing
    # transformers 5 saves all rows of both tables as two halves; the remaining rows are compared when the head is read.
    shared = min(files.arrays[key].shape[0] for key in ("lm_head.weight", *tables))
    return all(
        np.array_equal(files.read("lm_head.weight", rows), files.read(tables[0], rows))
        for rows in (slice(start, min(start + _CHUNK, shared)) for start in range(0, shared, _CHUNK))
    )


def _whole_config(model: HfModel) -> Molmo2Config:
    """A whole model with the parts that `model` has; the others are TINY's."""
    vit = TINY.vit if model.vit is None else model.vit
    vit = vit if vit.feature_layers else dataclasses.replace(vit, feature_layers=(0,))
    llm = TINY.llm if model.llm is None else model.llm
    return Molmo2Config(model.model_type, vit, TINY.connector if model.connector is None else model.connector, llm)


def _has_parameter(model: HfModel, name: str) -> bool:
    if name == "llm/embed/new":  # only Molmo2 has new tokens
        return model.connector is not None
    return {"vit": model.vit, "connector": model.connector, "llm": model.llm}[name.split("/")[0]] is not None


def _rules_for(model: HfModel, files: TensorFiles) -> list[tensor_rules.Rule]:
    if model.connector is not None:
        layout = "released" if any(key.startswith("model.transformer.") for key in files.arrays) else "transformers"
        return LAYOUTS[layout](model.llm)
    if model.llm is not None:
        return tensor_rules.base_llm(model.llm)
    prefix = "vision_model." if any(key.startswith("vision_model.") for key in files.arrays) else ""
    patch = files.arrays.get(f"{prefix}embeddings.patch_embedding.weight")
    return tensor_rules.siglip2(prefix, convolution=patch is not None and len(patch.shape) == 4)


def _check_tensors(tensors: list[tensor_rules.Tensor], files: TensorFiles, model: HfModel) -> None:
    """Raises HfError, naming every tensor that is missing, unknown or of another shape."""
    expected = {key: tensor for tensor in tensors for key in tensor.keys}
    unused = tensor_rules.SIGLIP2_UNUSED.fullmatch if model.llm is None else lambda _: False
    problems = [
        f"{files.folder}: no tensor {key}, which the {model.model_type} of its config.json has"
        for key, tensor in expected.items()
        if key not in files.arrays and not tensor.copy
    ]
    problems += [
        f"{files.where(key)}: unknown to the {model.model_type} of its config.json"
        for key in files.arrays
        if key not in expected and not unused(key)
    ]
    for tensor in tensors:
        shapes = [files.arrays[key].shape for key in tensor.keys if key in files.arrays]
        if len(shapes) < len(tensor.keys):
            continue
        found = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if all(shapes) else ()
        if found != tensor.shape or len({shape[1:] for shape in shapes}) > 1:
            hint = "; it is transposed" if found == tensor.shape[::-1] else ""
            found_shapes = " and ".join(map(str, shapes))
            problems.append(f"{files.where(tensor.keys[0])}: shape {found_shapes}, expected {tensor.shape}{hint}")
        if len({files.arrays[key].dtype for key in tensor.keys}) > 1:
            problems.append(f"{files.where(tensor.keys[0])}: of another dtype than {tensor.keys[1]}")
    if problems:
        more = f"\n… and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise HfError("\n".join(problems[:10]) + more)


def tensors_of(
    source: ParameterSource, s: Structure, layout: str, dtype: np.dtype | None
) -> tuple[dict[str, jax.ShapeDtypeStruct], Callable[[str], np.ndarray]]:
    """A whole model's parameters as the tensors of a Molmo2: {key: shape and dtype}, and a function that makes one.

    Args:
      layout: a key of LAYOUTS.
      dtype: what values are rounded to; None keeps the stored dtype, or the widest where parameters share a tensor.

    Raises (when a tensor is made):
      HfError: a value is not finite.
    """
    makers: dict[str, Callable[[], np.ndarray]] = {}
    arrays: dict[str, jax.ShapeDtypeStruct] = {}
    for tensor in tensor_rules.expand(LAYOUTS[layout](s.config.llm), s.shapes, lambda name: s.layers(name) is not None):
        for key, pieces in _pieces_by_key(tensor):
            shapes = [piece.rows_shape for piece in pieces]
            shape = (sum(rows for rows, *_ in shapes), *shapes[0][1:])
            stored = np.result_type(*(source.arrays[piece.name].dtype for piece in pieces))
            arrays[key] = jax.ShapeDtypeStruct(shape, dtype or stored)
            makers[key] = _TensorMaker(source, pieces, arrays[key].dtype)
    return arrays, lambda key: makers[key]()


def _pieces_by_key(tensor: tensor_rules.Tensor) -> Iterator[tuple[str, tuple[tensor_rules.Piece, ...]]]:
    """Each key, and the pieces whose rows its tensor holds."""
    if len(tensor.keys) == 1:
        yield tensor.keys[0], tensor.pieces
    else:
        yield from ((key, (piece,)) for key, piece in zip(tensor.keys, tensor.pieces, strict=True))


@dataclasses.dataclass(frozen=True)
class _TensorMaker:
    """Makes one tensor from the parameters when it is called."""

    source: ParameterSource
    pieces: tuple[tensor_rules.Piece, ...]
    dtype: np.dtype

    def __call__(self) -> np.ndarray:
        rows = []
        for piece in self.pieces:
            values = self.source.read(piece.name, piece.layer).astype(self.dtype, copy=False)
            if not all_finite(values):
                layer = "" if piece.layer is None else f", layer {piece.layer}"
                raise HfError(
                    f"{self.source.where}: parameter {piece.name}{layer} has values that are NaN or infinite as "
                    f"{self.dtype}"
                )
            rows.append(piece.to_rows(values))
        return rows[0] if len(rows) == 1 else np.concatenate(rows)
