"""`molmo2 convert`."""

import pathlib

import ml_dtypes
import numpy as np
import tqdm
from absl import flags

from molmo2_jax.hf import gguf
from molmo2_jax.hf.source import LAYOUTS
from molmo2_jax.tools import command
from molmo2_jax.train.config import ConfigError
from molmo2_jax.train.convert import hf_to_orbax, orbax_to_hf

DTYPES = {"keep": None, "float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

_HELP = {
    "from": "What to convert: hf:FOLDER, hf:gs://… or hf:ORG/NAME (a Molmo2), orbax:FOLDER (a workdir, a step or a "
    "converted checkpoint), gguf:FILE (a Llama-style language model).",
    "to": "A folder that is not there yet: orbax:FOLDER from hf:, hf:FOLDER from orbax: and gguf:.",
    "layout": "To hf: only: tensors named as in the released checkpoints or as in transformers' memory; it loads both.",
    "dtype": "To hf: only: what numbers are rounded to.",
    "max_positions": "To hf: only: longest sequence that config.json promises, tokens; by default as "
    "the model came, or 36,864, or the row it was trained on if that is longer.",
}


def main(argv: list[str]) -> None:
    """Converts a checkpoint; the target is whole or not there."""
    flags.DEFINE_string("from", None, _HELP["from"])
    flags.DEFINE_string("to", None, _HELP["to"])
    layout = flags.DEFINE_enum("layout", "released", sorted(LAYOUTS), _HELP["layout"])
    dtype = flags.DEFINE_enum("dtype", "keep", sorted(DTYPES), _HELP["dtype"])
    positions = flags.DEFINE_integer("max_positions", None, _HELP["max_positions"], lower_bound=1)
    flags.mark_flags_as_required(["from", "to"])

    def convert() -> int:
        kind, source = _split("from", flags.FLAGS["from"].value, ("hf", "orbax", "gguf"))
        to, place = _split("to", flags.FLAGS["to"].value, ("hf", "orbax"))
        target = pathlib.Path(place)
        if "://" in place:
            raise ConfigError(f"--to={to}:{place}: a local or mounted folder is needed; copy it from there")
        if (kind, to) == ("hf", "orbax"):
            print(hf_to_orbax(source, target))
        elif (kind, to) == ("orbax", "hf"):
            options = {"layout": layout.value, "dtype": DTYPES[dtype.value], "max_positions": positions.value}
            print(orbax_to_hf(source, target, **options))
        elif (kind, to) == ("gguf", "hf"):
            with tqdm.tqdm(unit="B", unit_scale=True, desc=source) as bar:
                gguf.write_directory(pathlib.Path(source), target, bar.update)
            print(f"{target}: the model of {source}, in float32")
        else:
            raise ConfigError(f"--from={kind}:… --to={to}:… : known are hf to orbax, orbax to hf and gguf to hf")
        return 0

    command.run(convert, argv)


def _split(flag: str, value: str, kinds: tuple[str, ...]) -> tuple[str, str]:
    """Kind and place: "hf:runs/export" -> ("hf", "runs/export")."""
    kind, _, place = value.partition(":")
    if kind not in kinds or not place:
        raise ConfigError(f"--{flag}={value}: it begins with {' or '.join(f'{k}:' for k in kinds)}")
    return kind, place
