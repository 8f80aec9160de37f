"""A Hugging Face directory as a source of parameters, and any source of parameters as the tensors of a directory."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from molmo2_jax.hf import rules
from molmo2_jax.hf.config import HfError, HfModel, read_config
from molmo2_jax.hf.files import TensorFiles, all_finite
from molmo2_jax.models.config import TINY, Molmo2Config
from molmo2_jax.models.params import ParameterSource, Structure, structure

LAYOUTS = {"released": rules.released, "transformers": rules.native}  # how the tensors of a Molmo2 are named

CONFIG = "config.json"
_CHUNK = 1 << 14  # rows of a vocabulary compared at a time


class HfSource:
    """The parameters of a directory: a whole Molmo2 in either layout, or the part of one that a base model is.

    `model` is what its config.json says, `arrays` the parameters it has. Before the first number is read it is certain
    that every tensor belongs to one parameter and every parameter has its tensor, in the right shape.
    """

    def __init__(self, folder: pathlib.Path, where: str, tied: bool | None):
        """Needs a mesh to be set (sharding.make_mesh).

        Args:
          where: what errors and reports call the directory.
          tied: Molmo2 only, whose files always have an output embedding: whether it is to be a copy of the input
            embedding; None finds out.

        Raises:
          HfError: no such files, damaged ones, another architecture, missing, unknown or misshapen tensors.
        """
        self.where = where
        self._files = TensorFiles(folder)
        self.model = _with_head(read_model(folder), self._files, tied)
        own = structure(_stand_in(self.model))
        present = {name: shape for name, shape in own.shapes.items() if _has(self.model, name)}
        self._tensors = rules.expand(_rules(self.model, self._files), present, lambda n: own.layers(n) is not None)
        _check(self._tensors, self._files, self.model)
        self.arrays: dict[str, jax.ShapeDtypeStruct] = {}
        self._places: dict[tuple[str, int | None], tuple[rules.Tensor, rules.Piece, int]] = {}
        self._copies = {t.pieces[0].name: t for t in self._tensors if t.copy and t.keys[0] in self._files.arrays}
        for tensor in self._tensors:
            if tensor.copy:
                continue
            start, dtype = 0, self._files.arrays[tensor.keys[0]].dtype
            for piece in tensor.pieces:
                self._places[piece.name, piece.layer] = tensor, piece, start
                self.arrays[piece.name] = jax.ShapeDtypeStruct(present[piece.name], dtype)
                start += piece.theirs[0]

    def read(self, name: str, layer: int | None) -> np.ndarray:
        """One layer of a stacked parameter, or the whole of another, as it is stored.

        Raises:
          HfError: a number is not finite, or a tied head differs from the input embedding.
        """
        tensor, piece, start = self._places[name, layer]
        rows = self._rows(tensor.keys, start, start + piece.theirs[0])
        if name in self._copies:
            self._check_copy(self._copies[name], rows)
        return piece.to_ours(rows)

    def _rows(self, keys: tuple[str, ...], start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of the tensors of `keys`, which lie one below the other."""
        parts, first = [], 0
        for key in keys:
            last = first + self._files.arrays[key].shape[0]
            if start < last and first < stop:
                parts.append(self._files.read(key, slice(max(start, first) - first, min(stop, last) - first)))
            first = last
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _check_copy(self, tensor: rules.Tensor, rows: np.ndarray) -> None:
        (key,) = tensor.keys
        for start in range(0, len(rows), _CHUNK):
            stop = min(start + _CHUNK, len(rows))
            if not np.array_equal(self._files.read(key, slice(start, stop)), rows[start:stop]):
                raise HfError(
                    f"{self._files.where(key)}: differs from the input embedding at rows {start} to {stop - 1}, but "
                    "the wanted model has one table for both"
                )


def read_model(folder: pathlib.Path) -> HfModel:
    """What the config.json of a directory says. Raises HfError."""
    path = folder / CONFIG
    if not path.is_file():
        raise HfError(f"{path}: no such file; a directory as transformers writes it is needed")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise HfError(f"{path}: not JSON ({error})") from error
    return read_config(config, str(path))


def _with_head(model: HfModel, files: TensorFiles, tied: bool | None) -> HfModel:
    """A Molmo2's files never say that its head is tied: they hold a copy of the input embedding."""
    if model.connector is None or model.llm.tied:
        return model
    if tied is None:
        tied = _head_is_a_copy(files)
    return dataclasses.replace(model, llm=dataclasses.replace(model.llm, tied=tied))


def _head_is_a_copy(files: TensorFiles) -> bool:
    tables = [key for key in files.arrays if key.endswith(("wte.embedding", "embed_tokens.weight"))]
    if len(tables) != 1 or "lm_head.weight" not in files.arrays:
        return False  # a complete check follows
    # transformers 5 cuts both tables' rows into halves when it saves; the rest is compared when the head is read.
    shared = min(files.arrays[key].shape[0] for key in ("lm_head.weight", *tables))
    return all(
        np.array_equal(files.read("lm_head.weight", rows), files.read(tables[0], rows))
        for rows in (slice(start, min(start + _CHUNK, shared)) for start in range(0, shared, _CHUNK))
    )


def _stand_in(model: HfModel) -> Molmo2Config:
    """A whole model around what there is; the other parts are any."""
    vit = TINY.vit if model.vit is None else model.vit
    vit = vit if vit.feature_layers else dataclasses.replace(vit, feature_layers=(0,))
    llm = TINY.llm if model.llm is None else model.llm
    return Molmo2Config(model.model_type, vit, TINY.connector if model.connector is None else model.connector, llm)


def _has(model: HfModel, name: str) -> bool:
    if name == "llm/embed/new":  # Molmo2's own tokens
        return model.connector is not None
    return {"vit": model.vit, "connector": model.connector, "llm": model.llm}[name.split("/")[0]] is not None


def _rules(model: HfModel, files: TensorFiles) -> list[rules.Rule]:
    if model.connector is not None:
        layout = "released" if any(key.startswith("model.transformer.") for key in files.arrays) else "transformers"
        return LAYOUTS[layout](model.llm)
    if model.llm is not None:
        return rules.base_llm(model.llm)
    prefix = "vision_model." if any(key.startswith("vision_model.") for key in files.arrays) else ""
    patch = files.arrays.get(f"{prefix}embeddings.patch_embedding.weight")
    return rules.siglip2(prefix, convolution=patch is not None and len(patch.shape) == 4)


def _check(tensors: list[rules.Tensor], files: TensorFiles, model: HfModel) -> None:
    """HfError with every tensor that is missing, unknown, double or of another shape."""
    expected = {key: tensor for tensor in tensors for key in tensor.keys}
    unused = rules.SIGLIP2_UNUSED.fullmatch if model.llm is None else lambda _: False
    wrong = [
        f"{files.folder}: no tensor {key}, which the {model.model_type} of its config.json has"
        for key, tensor in expected.items()
        if key not in files.arrays and not tensor.copy
    ]
    wrong += [
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
            there = " and ".join(map(str, shapes))
            wrong.append(f"{files.where(tensor.keys[0])}: shape {there}, expected {tensor.shape}{hint}")
        if len({files.arrays[key].dtype for key in tensor.keys}) > 1:
            wrong.append(f"{files.where(tensor.keys[0])}: of another dtype than {tensor.keys[1]}")
    if wrong:
        more = f"\n… and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise HfError("\n".join(wrong[:10]) + more)


def tensors_of(
    source: ParameterSource, s: Structure, layout: str, dtype: np.dtype | None
) -> tuple[dict[str, jax.ShapeDtypeStruct], Callable[[str], np.ndarray]]:
    """A whole model's parameters as the tensors of a Molmo2: what there is by key, and a function that makes one.

    Args:
      layout: a key of LAYOUTS.
      dtype: what numbers are rounded to; None keeps each as it is stored (where parameters share a tensor: the widest).

    Raises (when a tensor is made):
      HfError: a number is not finite.
    """
    made: dict[str, Callable[[], np.ndarray]] = {}
    arrays: dict[str, jax.ShapeDtypeStruct] = {}
    for tensor in rules.expand(LAYOUTS[layout](s.config.llm), s.shapes, lambda name: s.layers(name) is not None):
        for key, pieces in _shared_out(tensor):
            theirs = [piece.theirs for piece in pieces]
            shape = (sum(rows for rows, *_ in theirs), *theirs[0][1:])
            stored = np.result_type(*(source.arrays[piece.name].dtype for piece in pieces))
            arrays[key] = jax.ShapeDtypeStruct(shape, dtype or stored)
            made[key] = _Maker(source, pieces, arrays[key].dtype)
    return arrays, lambda key: made[key]()


def _shared_out(tensor: rules.Tensor) -> Iterator[tuple[str, tuple[rules.Piece, ...]]]:
    """Each key with the pieces whose rows it has."""
    if len(tensor.keys) == 1:
        yield tensor.keys[0], tensor.pieces
    else:
        yield from ((key, (piece,)) for key, piece in zip(tensor.keys, tensor.pieces, strict=True))


@dataclasses.dataclass(frozen=True)
class _Maker:
    """One tensor of theirs, made of our parameters when it is called for."""

    source: ParameterSource
    pieces: tuple[rules.Piece, ...]
    dtype: np.dtype

    def __call__(self) -> np.ndarray:
        rows = []
        for piece in self.pieces:
            values = self.source.read(piece.name, piece.layer).astype(self.dtype, copy=False)
            if not all_finite(values):
                layer = "" if piece.layer is None else f", layer {piece.layer}"
                raise HfError(
                    f"{self.source.where}: parameter {piece.name}{layer} has numbers that are NaN or infinite as "
                    f"{self.dtype}"
                )
            rows.append(piece.to_theirs(values))
        return rows[0] if len(rows) == 1 else np.concatenate(rows)
